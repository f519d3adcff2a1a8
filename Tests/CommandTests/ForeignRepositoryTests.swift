import Glibc
import Testing

/// Root works on a repository that an ordinary user can write to, while that user plants links.
@Suite(.serialized, .enabled(if: isRoot && hasProgram("setpriv"), "needs root and setpriv"))
struct ForeignRepositoryTests {
    /// A repository that belongs to user 65534 with the image `t`, and files of root beside it.
    private func makeStores() throws -> (store: ContractStore, outside: String) {
        let (store, _) = try ContractStore.small()
        let outside = store.folder.path + "/outside"
        try mustShell(
            #"""
            chmod 755 "$1"; mkdir "$2"; echo precious > "$2/t"; mkdir "$2/refs" "$2/00" "$2/oci"; echo precious > "$2/oci/t"
            mkdir "$2/refs/oci"; echo precious > "$2/refs/oci/t"
            chown -R -h 65534:65534 "$3"; chmod 755 "$3"
            """#, [store.folder.path, outside, store.path])
        return (store, outside)
    }

    private static let writing: [[String]] = [
        ["tag", "t", "u"], ["untag", "t"], ["rm", "t"], ["gc"], ["prune"], ["upgrade"], ["pull", "LAYOUT", "t"],
        ["referrers", "remove", "t", "sha256:" + String(repeating: "0", count: 64)], ["create-image", "/etc/ssl", "etc"],
        ["init", "REPO", "--insecure"],
    ]

    /// Every command that writes refuses and says how to allow it; commands that read work.
    @Test func writingNeedsConsent() throws {
        let (store, _) = try makeStores()
        let before = store.files
        func arguments(_ command: [String]) -> [String] {
            command.map { $0 == "LAYOUT" ? "oci:" + store.layoutPath("t") : $0 == "REPO" ? store.path : $0 }
        }
        for command in Self.writing where command[0] != "init" {
            let result = try store.run(arguments(command))
            #expect(result.status == 1, "\(command)")
            #expect(
                result.error
                    == "cfsoci: error: \(store.path) belongs to another user (uid 65534), so nothing is written to the repository; --trust-owner, "
                    + "or CFSOCI_TRUST_OWNER=1 in the environment, writes to it anyway\n", "\(command): \(result.error)")
            #expect(store.files == before, "\(command)")
        }
        for command in [["images"], ["inspect", "t"], ["ls", "t"], ["fsck"], ["dump", "t"], ["gc", "--dry-run"]] {
            #expect(try store.run(command).status == 0, "\(command)")
        }
        #expect(try store.run(["tag", "t", "u", "--trust-owner"]).status == 0)
        #expect(try store.run(["tag", "t", "v"], environment: ["CFSOCI_TRUST_OWNER=1"]).status == 0)
        #expect(try store.run(["tag", "t", "w"], environment: ["CFSOCI_TRUST_OWNER=0"]).status == 1)
        // Like git: with sudo, the calling user is trusted.
        #expect(try store.run(["tag", "t", "w"], environment: ["SUDO_UID=65534"]).status == 0)
        #expect(try store.run(["tag", "t", "w"], environment: ["SUDO_UID=1000"]).status == 1)
    }

    @Test(
        arguments: ["chmod o+w", "chmod +t,a+w", "chgrp 65534 \"$0\"; chmod g+w", "setfacl -m u:65534:rwx"],
        ["", "/objects", "/streams/refs"])
    func aDirectoryThatOthersCanWriteTo(_ how: String, _ part: String) throws {
        let (store, _) = try ContractStore.small()
        let path = store.path + part
        let script = how.contains("$0") ? how.replacing("$0", with: "$1") + " \"$1\"" : how + " \"$1\""
        try mustShell(script, [path])
        let result = try store.run(["tag", "t", "u"])
        #expect(result.status == 1 && result.error.contains("cfsoci: error: \(path) can be written to by "), "\(result.error)")
        let remedy = how.hasPrefix("setfacl") ? "setfacl -b" : "chmod go-w"
        #expect(result.error.contains("; `\(remedy) \(path)` removes that permission; --trust-owner"), "\(result.error)")
        try mustShell(remedy + " \"$1\"", [path])
        #expect(try store.run(["tag", "t", "u"]).status == 0)
    }

    /// With consent, links are still not followed: `untag` and other commands do not change files outside.
    @Test(arguments: [".staging", "objects", "streams", "streams/refs", "streams/refs/oci", "images"])
    func plantedLinksLeadNowhere(_ name: String) throws {
        let (store, outside) = try makeStores()
        try mustShell(
            #"""
            asNobody() { setpriv --reuid 65534 --regid 65534 --clear-groups -- "$@"; }
            cd "$1"; [ ! -e "$2" ] || asNobody mv "$2" moved; asNobody ln -s "$3" "$2"
            """#, [store.path, name, outside])
        let before = try mustShell("cd \"$1\"; find . -printf '%p %y %s %U\\n' | sort", [outside])
        for command in Self.writing + [["fsck"], ["ls", "t"], ["images"], ["mount", "t", "/nowhere"]] {
            let arguments = command.map { $0 == "LAYOUT" ? "oci:" + store.layoutPath("t") : $0 == "REPO" ? store.path : $0 }
            let result = try store.run(arguments, environment: ["CFSOCI_TRUST_OWNER=1"])
            #expect(result.status < 128, "\(command): \(result.error)")
            #expect(try mustShell("cd \"$1\"; find . -printf '%p %y %s %U\\n' | sort", [outside]) == before, "\(command) with \(name)")
        }
        let result = try store.run(["untag", "t"], environment: ["CFSOCI_TRUST_OWNER=1"])
        // Below `refs`, a link is a reference, unless it is used as a directory.
        let reason = name.hasSuffix("/oci") ? "below a repository no symbolic link is followed" : "\(store.path)/\(name) is no directory"
        #expect(result.status == 1 && result.error.contains(reason), "\(result.error)")
    }

    /// A permissive umask does not make files writable for others.
    @Test func umaskOfNothing() throws {
        let folder = try TemporaryFolder()
        let layout = folder.path + "/layout"
        _ = try LayoutBuilder.small().write(to: layout)
        let listing = try mustShell(
            #"""
            umask 0
            "$CFSOCI" init --insecure "$1/repo" > /dev/null
            "$CFSOCI" pull --repo "$1/repo" "oci:$1/layout" t > /dev/null
            find "$1/repo" ! -type l -perm /022 -printf '%P %m\n'
            find "$1/repo/objects" -type f ! -perm 0644; find "$1/repo/objects" -type d ! -perm 0755
            """#, [folder.path])
        #expect(listing.isEmpty, "\(listing)")
    }
}
