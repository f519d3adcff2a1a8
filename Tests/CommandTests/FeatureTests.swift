import ComposefsBytes
import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsTestSupport
import Glibc
import Testing

/// `cfsoci features`: compares the report with facts from other sources.
@Suite(.serialized) struct FeatureTests {
    private static let names = [
        "fsVeritySha256", "fsVeritySha512", "builtinSignatures", "unnamedFiles", "reflink", "erofs", "fileBackedErofs", "loopDevices",
        "dataOnlyLayers", "overlayVerity", "detachedLayers", "idmappedMounts", "fuse", "fusePassthrough", "userNamespaces", "landlock",
    ]

    private func probe(_ path: String, by prefix: [String] = []) throws -> JSONValue {
        let before = fileList(path)
        let command = prefix + [Cfsoci.binary, "features", path, "--json"]
        let result = try launch(command[0], Array(command.dropFirst()))
        #expect(result.status == 0 && result.error.isEmpty, "\(result.error)")
        #expect(fileList(path) == before)
        let document = try result.json()
        #expect(document["path"]?.string == path)
        guard case .object(let features)? = document["features"] else {
            Issue.record("no features: \(result.text)")
            return .null
        }
        #expect(features.keys == Self.names)
        for name in Self.names {
            let feature = features[name]
            #expect(["yes", "no", "unknown"].contains(feature?["state"]?.string), "\(name)")
            #expect(feature?["title"]?.string?.isEmpty == false && feature?["without"]?.string?.isEmpty == false, "\(name)")
            // A missing feature has a reason.
            #expect(feature?["state"]?.string == "yes" || feature?["detail"]?.string?.isEmpty == false, "\(name)")
        }
        #expect(["kernel", "fuse", "none"].contains(document["mounting"]?.string))
        #expect(["kernel", "fuse", "none"].contains(document["secureMounting"]?.string))
        return document
    }

    private func state(_ document: JSONValue, _ name: String) -> String? { document["features"]?[name]?["state"]?.string }

    @Test func agreesWithWhatCommandsDo() throws {
        let folder = try TemporaryFolder()
        let found = try probe(folder.path)
        let initialized = try Cfsoci.run(["init", folder.path + "/secure", "--algorithm", "fsverity-sha256-12"])
        #expect((state(found, "fsVeritySha256") == "yes") == (initialized.status == 0))
        #expect(state(found, "fsVeritySha512") == state(found, "fsVeritySha256"))
        #expect(found["kernel"]?.string == String(decoding: try readFile("/proc/sys/kernel/osrelease").dropLast(), as: UTF8.self))
        if hasProgram("stat") {
            let type = try launch("stat", ["-f", "-c", "%T", folder.path]).lines.first ?? ""
            // stat does not distinguish ext2, ext3 and ext4.
            #expect(found["fileSystem"]?.string.map { $0 == type || type.hasPrefix("ext2") && $0.hasPrefix("ext") } == true)
        }
        if hasProgram("cp") {
            try writeFile(folder.path + "/a", [UInt8](repeating: 1, count: 10_000))
            let copied = try launch("cp", ["--reflink=always", folder.path + "/a", folder.path + "/b"])
            #expect((state(found, "reflink") == "yes") == (copied.status == 0))
        }
        let hasUnnamed = (try? FileDescriptor.open(ByteString(folder.path), .readOnly).openTemporary()) != nil
        #expect((state(found, "unnamedFiles") == "yes") == hasUnnamed)
    }

    @Test(.enabled(if: isRoot, "mounting needs root")) func asRoot() throws {
        let folder = try TemporaryFolder()
        let loops = fileList("/sys/block").filter { access("/sys/block/\($0)/loop/backing_file", F_OK) == 0 }
        let found = try probe(folder.path)
        let store = try ContractStore()
        let image = try store.pull(LayoutBuilder.small(), as: "t")
        let target = folder.path + "/target"
        mkdir(target, 0o755)
        let mounted = try store.run(["mount", image.manifest, target])
        let isByKernel = mounted.status == 0 && !mounted.error.contains("FUSE")
        #expect((found["mounting"]?.string == "kernel") == isByKernel)
        #expect((state(found, "dataOnlyLayers") == "yes") == isByKernel)
        if mounted.status == 0 { try store.succeed(["umount", target]) }
        if let map = try? readFile("/proc/filesystems") {
            let hasErofs = String(decoding: map, as: UTF8.self).contains("\terofs\n")
            #expect(!hasErofs || state(found, "erofs") != "no")
        }
        let now = fileList("/sys/block").filter { access("/sys/block/\($0)/loop/backing_file", F_OK) == 0 }
        #expect(now.count <= loops.count + 1)
    }

    /// On a tmpfs, the kernel does not mount images from files, and there is no fs-verity.
    @Test(.enabled(if: isRoot && access("/dev/shm", W_OK) == 0, "needs root and /dev/shm")) func onTmpfs() throws {
        let path = "/dev/shm/features-" + Host.randomName()
        mkdir(path, 0o755)
        defer { removeTree(path) }
        let found = try probe(path)
        guard found["fileSystem"]?.string == "tmpfs" else { try Test.cancel("/dev/shm is not a tmpfs") }
        #expect(state(found, "fsVeritySha256") == "no" && state(found, "fsVeritySha512") == "no")
        #expect(state(found, "builtinSignatures") == "no" && state(found, "overlayVerity") == "no")
        #expect(state(found, "fileBackedErofs") != "yes")
        #expect(state(found, "reflink") == "no" && state(found, "unnamedFiles") == "yes")
        #expect(found["secureMounting"]?.string != "kernel")
        if state(found, "loopDevices") == "yes", state(found, "erofs") == "yes" { #expect(found["mounting"]?.string == "kernel") }
    }

    /// A feature that could not be tried is unknown, not missing.
    @Test(.enabled(if: isRoot && hasProgram("setpriv"), "needs root and setpriv")) func withoutRights() throws {
        let folder = try TemporaryFolder()
        chmod(folder.path, 0o777)
        // Users other than root must be able to run the program.
        guard try launch("setpriv", ["--reuid=65534", "--regid=65534", "--clear-groups", Cfsoci.binary, "--version"]).status == 0 else {
            try Test.cancel("the binary is not readable by others")
        }
        let found = try probe(folder.path, by: ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"])
        for name in ["erofs", "fileBackedErofs", "dataOnlyLayers", "idmappedMounts"] { #expect(state(found, name) == "unknown", "\(name)") }
        #expect(state(found, "unnamedFiles") == state(try probe(folder.path), "unnamedFiles"))
        #expect(found["mounting"]?.string != "kernel" && found["secureMounting"]?.string != "kernel")
        // In a directory that is not writable, few features can be tried.
        chmod(folder.path, 0o755)
        let unwritable = try probe(folder.path, by: ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"])
        for name in ["unnamedFiles", "reflink", "erofs", "loopDevices"] { #expect(state(unwritable, name) == "unknown", "\(name)") }
        #expect(unwritable["features"]?["landlock"] == found["features"]?["landlock"])
    }

    @Test(.enabled(if: hasProgram("unshare"), "needs unshare")) func inAUserNamespace() throws {
        guard try launch("unshare", ["-Urm", "true"]).status == 0 else { try Test.cancel("no user namespaces") }
        let folder = try TemporaryFolder()
        let found = try probe(folder.path, by: ["unshare", "-Urm"])
        #expect(state(found, "erofs") == "unknown" && found["mounting"]?.string != "kernel")
        #expect(state(found, "userNamespaces") == "yes")
        #expect(state(found, "fusePassthrough") != "yes")
        if access("/dev/fuse", R_OK | W_OK) == 0 { #expect(state(found, "fuse") == "yes" && found["mounting"]?.string == "fuse") }
    }

    @Test func landlockAndTable() throws {
        let folder = try TemporaryFolder()
        let found = try probe(folder.path)
        if state(found, "landlock") == "yes" { #expect((found["features"]?["landlock"]?["abi"]?.int64 ?? 0) > 0) }
        let text = try Cfsoci.succeed(["features", folder.path])
        #expect(text.lines[0].hasPrefix("path        \(folder.path) ("))
        #expect(text.lines[1] == "kernel      \(found["kernel"]?.string ?? "")")
        #expect(text.lines[2].hasPrefix("mounts      ") && text.lines[3].isEmpty)
        #expect(text.lines[4].split(separator: "  ").map { $0.trimmingSpaces } == ["FEATURE", "HERE", "DETAIL", "WITHOUT IT"])
        #expect(text.lines.count == 5 + Self.names.count)
        for (name, line) in zip(Self.names, text.lines.dropFirst(5)) {
            let feature = try #require(found["features"]?[name])
            #expect(line.hasPrefix(feature["title"]?.string ?? "?"), "\(line)")
            #expect(line.split(separator: "  ").map { $0.trimmingSpaces }.contains(feature["state"]?.string ?? "?"), "\(line)")
        }
    }

    @Test func paths() throws {
        let folder = try TemporaryFolder()
        let missing = try Cfsoci.run(["features", folder.path + "/none"])
        #expect(expectRefusal(missing) == "open \(folder.path)/none: No such file or directory")
        try writeFile(folder.path + "/file", [])
        #expect(expectRefusal(try Cfsoci.run(["features", folder.path + "/file"])).hasSuffix("Not a directory"))
        // For a repository that does not exist yet, its future location is used.
        let planned = try Cfsoci.run(["features", "--json", "--repo", folder.path + "/a/b/"])
        #expect(try planned.json()["path"]?.string == folder.path)
        #expect(try Cfsoci.run(["features", "--json"], environment: ["CFSOCI_REPO=" + folder.path]).json()["path"]?.string == folder.path)
    }
}

extension Substring {
    fileprivate var trimmingSpaces: String { String(drop { $0 == " " }.reversed().drop { $0 == " " }.reversed()) }
}
