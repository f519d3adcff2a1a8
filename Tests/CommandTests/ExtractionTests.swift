import ComposefsHashing
import ComposefsJSON
import ComposefsTestSupport
import Glibc
import Testing

/// `unpack`, `cp` and `export IMAGE -`: the files of an image in directories and archives.
struct ExtractionTests {
    private let folder: TemporaryFolder
    private let repo: [String]

    init() throws {
        folder = try TemporaryFolder()
        repo = ["--repo", folder.path + "/repo"]
        try Cfsoci.succeed(["init", folder.path + "/repo", "--insecure"])
    }

    private func pull(_ builder: LayoutBuilder = .small()) throws {
        try builder.write(to: folder.path + "/layout")
        try Cfsoci.succeed(repo + ["pull", "oci:\(folder.path)/layout", "t"])
    }

    /// What find and getfattr say about each file below a directory, without the times of the last reading.
    private func list(_ directory: String) throws -> String {
        try mustShell(
            "cd \"$1\"; find . -printf '%p %y %m %U %G %T@ %l %n %s %b\\n' | sort; getfattr -Rhd -m - -e hex . | sort; "
                + "find . -type f -exec sha256sum {} + | sort; find . \\( -type b -o -type c \\) -exec stat -c '%n %t %T' {} + | sort",
            [directory])
    }

    /// Every accepted image of the corpus: unpacked, exported and extracted by GNU tar, and exported and pulled again.
    @Test(.enabled(if: geteuid() == 0, "needs root"), arguments: CorpusTests.select(["accept"])) func corpus(record: CorpusTests.Record)
        throws
    {
        // The script knows the tree of the one image without a file.
        for tree in record.trees.isEmpty ? [JSONValue.null] : record.trees {
            let work = try TemporaryFolder()
            let file = tree["file"]?.string.map { Fixtures.folder + "/corpus/" + $0 } ?? "-"
            var arguments = [Fixtures.folder + "/disk-trees.py", Cfsoci.binary, record.layout, file, work.path, "--extract"]
            if let reference = tree["ref"]?.string { arguments += ["--ref", reference] }
            if let platform = tree["platform"]?.string { arguments += ["--platform", platform] }
            let result = try launch("python3", arguments)
            #expect(result.status == 0, "\(result.text)\(result.error)")
        }
    }

    /// Pulls an image of one layer: the archive that GNU tar makes of a directory.
    private func pull(directory: String) throws {
        let archive = folder.path + "/layer.tar"
        try mustShell(
            "tar --create --directory $1 --file $2 --format pax --xattrs --xattrs-include='*' --sparse --numeric-owner .",
            [directory, archive])
        try pull(LayoutBuilder(layers: [readFile(archive)]))
    }

    /// A directory with everything that files have comes back as it was, from an image whose layer GNU tar made of it.
    @Test(.enabled(if: geteuid() == 0, "needs root")) func directoryThereAndBack() throws {
        try mustShell(
            """
            mkdir -p "$1"/{deep,acl}; cd "$1"
            name=$(printf 'n%.0s' {1..200}); mkdir -p "deep/$name/$name"; echo x > "deep/$name/$name/file"
            ln -s "$(printf 't/%.0s' {1..90})end" longlink
            echo hello > one; ln one two; ln one deep/three; chown 3000000:4000000 one; chmod 6755 one; setfattr -n user.a -v b one
            setcap cap_net_raw+ep one || true
            truncate -s 3M sparse; printf end >> sparse
            mkfifo fifo; mknod char c 4095 1048575; mknod block b 8 1; mknod zero c 0 0
            touch -h -d '1969-12-31T23:59:58.25Z' two; touch -d '1960-01-01T00:00:00.000000001Z' sparse; touch -d '2200-02-03Z' fifo
            setfacl -m u:12:rx,d:g:13:rwx acl; setfattr -n trusted.t -v 1 acl; chmod 1751 .; touch -d '2001-02-03T04:05:06.789Z' . deep
            """, [folder.path + "/original"])
        try pull(directory: folder.path + "/original")
        let before = try list(folder.path + "/original")
        let report = try Cfsoci.succeed(repo + ["unpack", "t", folder.path + "/copy", "--json"]).json()
        #expect(try list(folder.path + "/copy") == before)
        #expect(report["files"]?.int64 == 3 && report["leftOut"]?.int64 == 0 && report["directories"]?.int64 == 4)
        try mustShell(
            """
            "$CFSOCI" --repo $1/repo export t - > $1/a.tar; "$CFSOCI" --repo $1/repo export t - | cmp - $1/a.tar
            mkdir $1/untarred; tar xf $1/a.tar -C $1/untarred --sparse --xattrs --xattrs-include='*' --numeric-owner -p
            """, [folder.path])
        // GNU tar fills holes.
        let blocks = try Set(list(folder.path + "/untarred").split(separator: "\n").filter { !$0.hasPrefix("./sparse ") })
        #expect(blocks == Set(before.split(separator: "\n").filter { !$0.hasPrefix("./sparse ") }))
    }

    @Test(.enabled(if: geteuid() == 0, "needs root")) func destinations() throws {
        try pull()
        let target = folder.path + "/target"
        // Missing; then not empty; then empty, with a mode and a default ACL of its own, which the files must not get.
        try Cfsoci.succeed(repo + ["unpack", "t", target])
        let first = try list(target)
        let refused = try Cfsoci.run(repo + ["unpack", "t", target])
        #expect(refused.status == 1 && refused.error.contains("not an empty directory"))
        #expect(try list(target) == first)
        try mustShell("mkdir -m 750 $1/second; setfacl -m d:u:77:rwx $1/second", [folder.path])
        try Cfsoci.succeed(repo + ["unpack", "t", folder.path + "/second"])
        #expect(try list(folder.path + "/second") == first)
        try writeFile(folder.path + "/file", [1])
        let file = try Cfsoci.run(repo + ["unpack", "t", folder.path + "/file"])
        #expect(file.status == 1 && file.error.contains("not a directory"))
        #expect(try readFile(folder.path + "/file") == [1])
        #expect(try Cfsoci.run(repo + ["unpack", "t", folder.path + "/missing/target"]).status == 1)
        #expect(try Cfsoci.run(repo + ["unpack", "absent", folder.path + "/third"]).status == 3)
        #expect(access(folder.path + "/third", F_OK) != 0)
        // A directory and a link of another user.
        try mustShell("mkdir $1/theirs $1/elsewhere; chown 65534 $1/theirs; ln -s elsewhere $1/link; chown -h 65534 $1/link", [folder.path])
        let theirs = try Cfsoci.run(repo + ["unpack", "t", folder.path + "/theirs"])
        #expect(theirs.status == 1 && theirs.error.contains("belongs to another user"))
        #expect(try Cfsoci.run(repo + ["unpack", "t", folder.path + "/link"]).status == 1)
        #expect(fileList(folder.path + "/elsewhere").isEmpty && fileList(folder.path + "/theirs").isEmpty)
    }

    /// A damaged object: nothing stays, and an archive has no end.
    @Test(.enabled(if: geteuid() == 0, "needs root")) func damage() throws {
        try pull()
        let object = try mustShell("$CFSOCI --repo $1 dump t | awk '$1 == \"/usr/big\" { print $9 }'", [folder.path + "/repo"])
        let path = try mustShell(
            "find $1/objects -type f -size 69k -print", [folder.path + "/repo"]
        ).split(separator: "\n").map(String.init)
        #expect(path.count == 1, "\(object)")
        let bytes = try readFile(path[0])
        try writeFile(path[0], bytes.dropLast() + [bytes[bytes.count - 1] ^ 1])
        for existing in [false, true] {
            if existing { mkdir(folder.path + "/target", 0o755) }
            let result = try Cfsoci.run(repo + ["unpack", "t", folder.path + "/target"])
            #expect(result.status == 2 || result.status == 1, "\(result.error)")
            #expect(result.error.contains("object"), "\(result.error)")
            #expect((access(folder.path + "/target", F_OK) == 0) == existing)
            #expect(fileList(folder.path + "/target").isEmpty)
        }
        let tar = try Cfsoci.run(repo + ["export", "t", "-"])
        let listed = try launch("tar", ["tf", "-"], input: tar.output)
        #expect(tar.status != 0 && listed.status != 0)
        let copy = try Cfsoci.run(repo + ["cp", "t:/usr/big", folder.path + "/big"])
        #expect(copy.status != 0 && access(folder.path + "/big", F_OK) != 0)
        #expect(fileList(folder.path).filter { $0.contains(".tmp-") }.isEmpty)
    }

    @Test(.enabled(if: geteuid() == 0, "needs root")) func copies() throws {
        try pull()
        let expected = Array("hello from test layer\n".utf8)
        func copy(_ source: String, _ destination: String) throws -> CommandResult {
            try Cfsoci.run(repo + ["cp", source, folder.path + "/" + destination])
        }
        #expect(try copy("t:/usr/small", "a").status == 0)
        #expect(try readFile(folder.path + "/a") == expected)
        mkdir(folder.path + "/in", 0o755)
        // Replaces a regular file, also below a link inside the image; never a directory.
        for _ in 0..<2 { #expect(try copy("t:/usr/../usr/small", "in").status == 0) }
        #expect(try readFile(folder.path + "/in/small") == expected)
        #expect(try copy("t:/usr/link", "in").status == 0)
        #expect(try mustShell("readlink $1/in/link", [folder.path]) == "big\n")
        #expect(try copy("t:/usr/link", "in").status == 1)
        #expect(try copy("t:/etc", "in").status == 0)
        #expect(try mustShell("stat -c '%u %g %a %Y' $1/in/etc/config", [folder.path]) == "3 4 644 1234567890\n")
        #expect(try copy("t:/etc", "etc").status == 0 && fileList(folder.path + "/etc") == ["config"])
        let again = try copy("t:/etc", "in")
        #expect(again.status == 1 && again.error.contains("not an empty directory"))
        mkdir(folder.path + "/in/config", 0o755)
        #expect(try copy("t:/etc/config", "in").status == 1)
        #expect(try copy("t:/absent", "b").status == 1 && access(folder.path + "/b", F_OK) != 0)
        #expect(try copy("absent:/etc", "b").status == 3)
        #expect(try Cfsoci.run(repo + ["cp", "t", folder.path + "/b"]).status == 64)
        // Hard links of a directory stay.
        #expect(try copy("t:/usr", "usr").status == 0)
        #expect(try mustShell("stat -c %h $1/usr/big $1/usr/hard", [folder.path]) == "2\n2\n")
        let tar = try Cfsoci.succeed(repo + ["cp", "t:/usr", "-"]).output
        let names = try launch("tar", ["tf", "-"], input: tar).lines
        #expect(names == ["./", "big", "empty", "hard", "link", "small"])
        let one = try Cfsoci.succeed(repo + ["cp", "t:/usr/small", "-"]).output
        #expect(try launch("tar", ["xOf", "-", "small"], input: one).output == expected)
    }

    /// Without root: files of the caller, and nothing that only root can make.
    @Test(.enabled(if: geteuid() == 0, "needs root")) func asAnotherUser() throws {
        try mustShell(
            "mkdir $1/original; cd $1/original; echo 1 > a; chown 5 a; chmod 4755 a; mknod d c 1 3; setfattr -n trusted.t -v 1 a; setfattr -n user.u -v 1 a",
            [folder.path])
        try pull(directory: folder.path + "/original")
        // One that was made of a directory is written, too.
        try Cfsoci.succeed(repo + ["create-image", folder.path + "/original", "made"])
        try Cfsoci.succeed(repo + ["unpack", "made", folder.path + "/made"])
        #expect(try mustShell("stat -c '%u %a' $1/made/a", [folder.path]) == "5 4755\n")
        try mustShell("chmod 755 $1; chmod -R a+rX $1/repo; mkdir $1/theirs; chown 65534:65534 $1/theirs", [folder.path])
        func run(_ arguments: String) throws -> CommandResult {
            try shell(
                "cp \"$CFSOCI\" $1/theirs/cfsoci 2>/dev/null || true; chmod 755 $1/theirs/cfsoci; cd $1/theirs; "
                    + "setpriv --reuid 65534 --regid 65534 --clear-groups $1/theirs/cfsoci --repo $1/repo --trust-owner " + arguments,
                [folder.path])
        }
        let refused = try run("unpack t out")
        #expect(refused.status == 1 && refused.error.contains("--as-user"), "\(refused.error)")
        let report = try run("unpack t out --as-user --json")
        #expect(report.status == 0, "\(report.error)")
        #expect(try report.json()["leftOut"]?.int64 == 3)
        #expect(
            try mustShell("stat -c '%u %a' $1/theirs/out/a; getfattr -d -m - --only-values $1/theirs/out/a", [folder.path])
                == "65534 755\n1")
        #expect(fileList(folder.path + "/theirs/out") == ["a"])
    }
}
