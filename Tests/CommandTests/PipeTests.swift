import ComposefsHashing
import ComposefsJSON
import Glibc
import Testing

/// Archives on standard input and output, through pipes, which cannot seek: `-` instead of a file.
@Suite struct PipeTests {
    private let folder: TemporaryFolder
    private let digest: ContentDigest
    private var repo: [String] { ["--repo", folder.path + "/repo"] }

    /// A store with an image that has its original blobs, so that its digest stays the same.
    init() throws {
        folder = try TemporaryFolder()
        var builder = LayoutBuilder.small()
        builder.compressor = "gzip"
        digest = try builder.write(to: folder.path + "/layout")
        try Cfsoci.succeed(["init", "--insecure", folder.path + "/repo"])
        try Cfsoci.succeed(repo + ["pull", "oci:\(folder.path)/layout", "docker.io/library/small:1", "--keep-blobs"])
    }

    private func identity(_ repo: String, _ name: String) throws -> [JSONValue?] {
        let image = try Cfsoci.succeed(["--repo", repo, "inspect", name]).json()
        return [image["manifestDigest"], image["configDigest"], image["imageIds"]]
    }

    /// The archive is the same as in a file, and nothing else is on standard output: what is told is on standard error.
    @Test(arguments: ["export", "push"]) func writesToAPipe(command: String) throws {
        try Cfsoci.succeed(repo + ["export", "small:1", "oci-archive:\(folder.path)/x.tar:v1"])
        let told = try mustShell(
            "$CFSOCI --repo $1/repo \(command) small:1 oci-archive:-:v1 2> $1/told | cat > $1/piped.tar; cat $1/told", [folder.path])
        #expect(try readFile(folder.path + "/piped.tar") == readFile(folder.path + "/x.tar"))
        #expect(told.contains("manifest  \(digest)\n") && told.contains("pushed  oci-archive:-:v1\n"))
        let names = try mustShell("tar tf $1/piped.tar", [folder.path]).split(separator: "\n").map(String.init)
        #expect(names.contains("index.json") && names.contains("blobs/sha256/\(digest.hex)"))
    }

    @Test(arguments: ["cat", "gzip -c", "zstd -qc"]) func readsFromAPipe(program: String) throws {
        try Cfsoci.succeed(repo + ["export", "small:1", "oci-archive:\(folder.path)/x.tar:v1"])
        try Cfsoci.succeed(repo + ["save", "small:1", folder.path + "/d.tar"])
        try Cfsoci.succeed(["init", "--insecure", folder.path + "/other"])
        for (form, file) in [("oci-archive:-:v1", "x"), ("oci-archive:-", "x"), ("docker-archive:-:docker.io/library/small:1", "d")] {
            let output = try mustShell(
                "\(program) $1/\(file).tar | $CFSOCI --repo $1/other pull \(form) piped --policy always --json", [folder.path])
            let result = try JSONValue.parse(Array(output.utf8))
            if file == "x" { #expect(result["manifestDigest"]?.string == digest.description) }
            #expect(try result["imageId"]?.string == Cfsoci.succeed(repo + ["compute-id", "small:1"]).lines.first)
            #expect(try Cfsoci.succeed(["--repo", folder.path + "/other", "cat", "piped", "usr/small"]).text == "hello from test layer\n")
        }
        #expect(try identity(folder.path + "/other", "piped")[1] == identity(folder.path + "/repo", "small:1")[1])
        #expect(try Cfsoci.run(["--repo", folder.path + "/other", "fsck", "--deep"]).status == 0)
        // A missing name is told with those that are there.
        let result = try shell("cat $1/x.tar | $CFSOCI --repo $1/other pull oci-archive:-:v2", [folder.path])
        #expect(expectRefusal(result, status: 3).contains("\"v1\""))
    }

    /// What a pipe has given cannot be fetched again, so a repair is not told to look there.
    @Test func fromStoreToStore() throws {
        try mustShell("$CFSOCI --repo $1/repo export small:1 oci-archive:-:v1 | $CFSOCI --repo $1/other pull oci-archive:-", [folder.path])
        let images = try Cfsoci.succeed(["--repo", folder.path + "/other", "images", "--json"]).json()["images"]?.array ?? []
        #expect(images.map { $0["name"]?.string } == ["oci-archive:-"])
        #expect(images.first?["manifestDigest"]?.string == digest.description)
        #expect(try identity(folder.path + "/other", "oci-archive:-") == identity(folder.path + "/repo", "small:1"))
        // The content of usr/big.
        try mustShell("rm $(find $1/other/objects -type f -size 70000c | grep .)", [folder.path])
        let repair = try Cfsoci.run(["--repo", folder.path + "/other", "fsck", "--repair"])
        #expect(repair.status == 2 && !(repair.text + repair.error).contains("standard input"), "\(repair.text)\(repair.error)")
        let refused = try Cfsoci.run(["--repo", folder.path + "/other", "fsck", "--repair", "--from", "oci-archive:-"])
        #expect(refused.status == 1 && refused.error.contains("read only once"), "\(refused.error)")
    }

    /// An index with all that belongs to it, from a layout through two pipes into another.
    @Test func aWholeIndex() throws {
        let (source, index, _) = try IndexLayout.whole(folder.path + "/index")
        try mustShell(
            """
            $CFSOCI copy --all oci:$1/index:v1 oci-archive:-:v2 2> $1/told | gzip -c \
                | $CFSOCI copy --all oci-archive:-:v2 oci-archive:- 2>> $1/told | $CFSOCI copy --all oci-archive:- oci:$1/copy:v3
            """, [folder.path])
        #expect(try blobs(ofLayout: folder.path + "/copy") == blobs(ofLayout: source.path))
        #expect(try listedDigests(ofLayout: folder.path + "/copy") == [index.digest.description])
        let told = try String(decoding: readFile(folder.path + "/told"), as: UTF8.self)
        #expect(told.split(separator: "\n").filter { $0 == "index  \(index.digest)" }.count == 2)
    }

    /// What cannot be done writes nothing to standard output.
    @Test func refusals() throws {
        func refuse(_ arguments: [String], status: Int32, _ part: String, input: [UInt8]? = nil) throws {
            let refusal = expectRefusal(try Cfsoci.run(repo + arguments, input: input), status: status)
            #expect(refusal.contains(part), "\(refusal)")
        }
        try refuse(["export", "nosuch", "oci-archive:-"], status: 3, "nosuch")
        let json = try Cfsoci.run(repo + ["export", "small:1", "oci-archive:-", "--json"])
        #expect(json.status == 64 && json.output.isEmpty && json.error.contains("standard output"), "\(json.error)")
        try refuse(["push", "small:1", "docker-archive:-"], status: 1, "oci-archive:FILE")
        try refuse(["export", "small:1", "oci-archive:-@\(digest)"], status: 1, "digest")
        try refuse(["pull", "oci-archive:-"], status: 1, "neither a regular file nor a pipe")
        // Empty, and no archive.
        let empty = try shell(": | $CFSOCI --repo $1/repo pull docker-archive:-", [folder.path])
        #expect(expectRefusal(empty).contains("is empty"))
        let text = try shell("echo no archive | $CFSOCI --repo $1/repo pull oci-archive:-", [folder.path])
        expectRefusal(text)
        let damaged = try shell(
            """
            $CFSOCI --repo $1/repo export small:1 oci-archive:- > $1/whole.tar 2> /dev/null
            # Not only the end of the archive is missing, which other tools leave out, too.
            head -c $(( $(stat -c %s $1/whole.tar) / 2 )) $1/whole.tar | $CFSOCI --repo $1/repo pull oci-archive:-
            """, [folder.path])
        #expect(expectRefusal(damaged).contains("the archive ends inside"))
        #expect(try Cfsoci.run(repo + ["fsck"]).status == 0)
        let terminal = try inTerminal(repo + ["export", "small:1", "oci-archive:-"])
        #expect(terminal.status == 64 && String(decoding: terminal.shown, as: UTF8.self).contains("standard output is a terminal"))
    }

    /// `./-` is a file.
    @Test func aFileOfThatName() throws {
        try mustShell(
            "cd $1; $CFSOCI --repo repo export small:1 oci-archive:./-:v1; test -s ./-; $CFSOCI --repo other pull oci-archive:./-:v1 < /dev/null",
            [folder.path])
        #expect(try identity(folder.path + "/other", "oci-archive:./-:v1") == identity(folder.path + "/repo", "small:1"))
    }
}
