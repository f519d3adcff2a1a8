import ComposefsTestSupport
import Glibc
import Testing

/// A Debian root file system, from a registry and from a layout, mounted and compared file by file with the original.
@Suite(.serialized) struct RealImageTests {
    private static let isRoot = geteuid() == 0

    private static func has(_ program: String) -> Bool {
        (try? launch("sh", ["-c", "command -v \(program)"]).status) == 0
    }

    private static let isPossible = isRoot && ["debootstrap", "skopeo", "docker-registry", "getfattr", "tar"].allSatisfy(has)

    /// A tree as seen by stat, readlink, getfattr and sha256sum, without the root directory and /run, which the transform changes.
    private func description(of root: String) throws -> [String] {
        let script = #"""
            cd "$1"
            find . -mindepth 1 -path ./run -prune -o -printf '%p\t%y\t%m\t%U\t%G\t%T@\t%l\t' \( -type d -printf '-\n' -o -type l -printf '-\n' -o -printf '%s\n' \)
            echo "-- content"
            find . -type f -not -path './run/*' -print0 | xargs -0 sha256sum
            echo "-- hard links"
            find . -type f -links +1 -printf '%i %p\n' | sort -k2 | awk '{ if (!($1 in first)) first[$1] = $2; print first[$1], $2 }'
            echo "-- capabilities"
            getfattr -R -h -d -m '^security\.capability$' -e hex . 2>/dev/null || true
            """#
        return try mustShell(script, [root]).split(separator: "\n").map(String.init).sorted()
    }

    @Test(.enabled(if: isPossible, "needs root, debootstrap, skopeo, docker-registry, getfattr"))
    func debianRoot() throws {
        let folder = try TemporaryFolder()
        let root = folder.path + "/root"
        let suite = try mustShell(". /etc/os-release; echo \"$VERSION_CODENAME\"").split(separator: "\n").first.map(String.init) ?? "stable"
        // The machine's own mirror.
        let mirror = try mustShell(
            "grep -rhoE 'https?://[^ ]*/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null | tr -d ' ' || true"
        ).split(separator: "\n").first.map(String.init)
        _ = try mustShell(
            "debootstrap --variant=minbase \"$1\" \"$2\" ${3:+\"$3\"} >&2", [suite, root] + (mirror.map { [$0] } ?? []))
        // Add what a plain root may lack: hard links across directories, capabilities, unusual names, sub-second and old times, set-ID
        // bits.
        _ = try mustShell(
            #"""
            cd "$1"
            mkdir -p opt/odd
            head -c 100000 /dev/zero | tr '\0' x > opt/odd/big
            ln opt/odd/big usr/big-again
            printf 'short' > "opt/odd/name with space"
            printf 'latin' > "$(printf 'opt/odd/\351\377')"
            touch -d '1960-01-01 00:00:00.25 UTC' opt/odd/old 2>/dev/null || touch opt/odd/old
            touch -d '2020-02-02 02:02:02.123456789 UTC' opt/odd/big
            setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 opt/odd/big || true
            setfattr -n user.note -v dropped opt/odd/big || true
            chmod 4755 opt/odd/big
            rm -rf dev/*
            """#, [root])
        _ = try mustShell(
            "tar -C \"$1\" --xattrs --xattrs-include='*' --format=pax --numeric-owner -cf \"$2\" .", [root, folder.path + "/layer.tar"])
        let layout = folder.path + "/layout"
        var builder = LayoutBuilder(layers: [try readFile(folder.path + "/layer.tar")], compressor: "gzip")
        builder.architecture = try mustShell("dpkg --print-architecture").split(separator: "\n").first.map(String.init) ?? "amd64"
        try builder.write(to: layout)
        builder.layers = []

        // From the layout.
        let repository = folder.path + "/repo"
        try Cfsoci.succeed(["init", repository, "--insecure"])
        let fromLayout = try Cfsoci.succeed(["pull", "oci:" + layout + ":latest", "layout", "--repo", repository])

        // From a registry that another tool filled.
        let registry = try LocalRegistry(below: folder.path)
        defer { registry.stop() }
        _ = try mustShell(
            "skopeo copy --quiet --dest-tls-verify=false \"oci:$1:latest\" \"docker://$2/debian:test\" >&2", [layout, registry.address])
        let second = folder.path + "/repo2"
        try Cfsoci.succeed(["init", second, "--insecure"])
        let fromRegistry = try Cfsoci.succeed(["pull", "docker://\(registry.address)/debian:test", "registry", "--repo", second])
        for key in ["manifest  ", "config  ", "image  "] {
            let line = fromLayout.lines.first { $0.hasPrefix(key) }
            #expect(line != nil)
            #expect(fromRegistry.lines.first { $0.hasPrefix(key) } == line)
        }
        #expect(try Cfsoci.run(["fsck", "--deep", "--repo", second]).status == 0)

        // The mounted tree equals the archived one.
        let target = folder.path + "/mounted"
        mkdir(target, 0o755)
        try Cfsoci.succeed(["mount", "registry", target, "--repo", second])
        defer { _ = try? launch("umount", ["-l", target]) }
        let original = try description(of: root)
        let mounted = try description(of: target)
        let missing = Set(original).subtracting(mounted).sorted()
        let extra = Set(mounted).subtracting(original).sorted()
        #expect(missing.isEmpty && extra.isEmpty, "missing: \(missing.prefix(20)), extra: \(extra.prefix(20))")
        #expect(original.count > 5000)
        try Cfsoci.succeed(["umount", target, "--repo", second])
        #expect(fileList(target).isEmpty)
    }
}

/// Debian's `docker-registry` on a free loopback port, with its storage below a folder.
final class LocalRegistry {
    let address: String
    private let pid: pid_t

    init(below folder: String) throws {
        let port = Loopback.freePort()
        address = "127.0.0.1:\(port)"
        let storage = folder + "/registry"
        mkdir(storage, 0o755)
        let configuration = """
            version: 0.1
            log: {level: error}
            storage: {filesystem: {rootdirectory: \(storage)}}
            http: {addr: "\(address)"}
            """
        try writeFile(folder + "/registry.yml", Array(configuration.utf8))
        pid = try start(
            "docker-registry", ["serve", folder + "/registry.yml"], output: folder + "/registry.out", error: folder + "/registry.err")
        if Loopback.waitUntilListening(port) { return }
        kill(pid, SIGTERM)
        throw RunFailure(description: "docker-registry does not answer on \(address)")
    }

    func stop() {
        kill(pid, SIGTERM)
        _ = wait(for: pid)
    }
}
