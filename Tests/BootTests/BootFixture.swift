import ComposefsBootFormats
import ComposefsBytes
import ComposefsEROFS
import ComposefsFileTree
import ComposefsHashing
import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsTestSupport
import Testing

@testable import ComposefsBoot

/// A system in a directory: `sysroot/composefs` is the repository, and `boot` the boot partition.
final class BootFixture: Sendable {
    let folder: TestFolder
    let repository: Repository
    var path: ByteString { folder.path }
    var boot: ByteString { folder.path + "/boot" }
    var sysroot: ByteString { folder.path + "/sysroot" }
    var images: ImageStore { ImageStore(repository) }

    init() throws {
        folder = try TestFolder("boot")
        for name in ["/boot", "/sysroot"] as [ByteString] { try FileDescriptor.makeDirectory(folder.path + name, mode: 0o755) }
        repository = try Repository.initialize(
            folder.path + "/sysroot/composefs", RepositoryConfiguration(algorithm: .sha256, verity: .insecure)
        ).repository
    }

    func partition() throws -> BootPartition { try BootPartition(boot) }

    func deployments(running: ObjectID? = nil) throws -> Deployments {
        let line = running.map { "quiet composefs.digest=?v1-sha256-12:\($0.hex)" } ?? "quiet"
        return try Deployments(beside: repository, commandLine: KernelCommandLine(parsing: line.utf8))
    }

    /// Stores an image for booting with these files and a name.
    @discardableResult
    func image(_ name: ByteString, _ files: [(ByteString, [UInt8])], _ change: (inout FileTree) throws -> Void = { _ in }) throws
        -> ObjectID
    {
        var tree = FileTree(root: Metadata(permissions: 0o755))
        for directory in ["boot", "sysroot", "etc", "var", "usr"] as [ByteString] {
            _ = try tree.addDirectory(directory, in: FileTree.root, Metadata(permissions: 0o755))
        }
        for (path, bytes) in files { try add(path, bytes, to: &tree) }
        try change(&tree)
        let id = try repository.storeImage(try writeErofs(tree, version: .v1)).id
        try images.name(id, as: name)
        return id
    }

    func add(_ path: ByteString, _ bytes: [UInt8], to tree: inout FileTree, _ metadata: Metadata = Metadata(permissions: 0o644)) throws {
        var at = FileTree.root
        let names = path.bytes.split(separator: UInt8(ascii: "/")).map { ByteString($0) }
        for name in names.dropLast() { at = try tree.lookup(name, in: at) ?? tree.addDirectory(name, in: at, Metadata(permissions: 0o755)) }
        let content: Content
        if bytes.count <= 64 {
            content = .inline(ByteString(bytes))
        } else {
            content = .external(try bytes.withUnsafeBytes { try repository.storeObject($0).id }, size: UInt64(bytes.count))
        }
        try tree.addLeaf(names.last ?? "", in: at, metadata, content)
    }

    /// An image with a kernel, and further files.
    @discardableResult
    func bootable(_ name: ByteString, kernel: String, disk: String, _ more: [(ByteString, [UInt8])] = []) throws -> ObjectID {
        try image(
            name,
            [
                ("usr/lib/os-release", Array("ID=example\nPRETTY_NAME=\"Example OS\"\nVERSION_ID=\(name)\n".utf8)),
                ("usr/lib/modules/6.1/vmlinuz", Array(kernel.utf8)), ("usr/lib/modules/6.1/initramfs.img", Array(disk.utf8)),
            ] + more)
    }

    @discardableResult
    func prepare(_ name: ByteString, running: ObjectID? = nil, _ change: (inout BootPreparation) -> Void = { _ in }) throws -> PreparedBoot
    {
        var options = BootPreparation()
        change(&options)
        return try images.prepareBoot(name, on: try partition(), in: try deployments(running: running), options)
    }

    func read(_ path: ByteString) throws -> String {
        String(decoding: try FileDescriptor.open(folder.path + "/" + path, .readOnly).readAll(limit: 1 << 20), as: UTF8.self)
    }

    func write(_ path: ByteString, _ text: String, mode: UInt32 = 0o644) throws {
        let (directory, _) = FileDescriptor.split(folder.path + "/" + path)
        var at = ByteString()
        for name in directory.bytes.split(separator: UInt8(ascii: "/")) {
            at = at + "/" + ByteString(name)
            try FileDescriptor.currentDirectory.makeDirectoryIfMissing(at: at, mode: 0o755)
        }
        let file = try FileDescriptor.open(folder.path + "/" + path, [.writeOnly, .create, .truncate], mode: mode)
        try file.writeAll(Array(text.utf8))
        try file.changeMode(mode)
    }

    /// Everything below a directory: the content of files, the targets of links, nothing for directories.
    func listing(_ directory: ByteString) throws -> [String: String] {
        var all: [String: String] = [:]
        var pending: [ByteString] = [""]
        let root = try FileDescriptor.open(folder.path + "/" + directory, [.readOnly, .directory])
        while let next = pending.popLast() {
            for entry in try root.open(at: next.isEmpty ? "." : next, [.readOnly, .directory]).entries() {
                let path = next.isEmpty ? entry.name : next + "/" + entry.name
                switch entry.kind {
                case .directory:
                    all[path.description] = "/"
                    pending.append(path)
                case .symbolicLink: all[path.description] = "-> " + (try root.readLink(at: path)).description
                case .characterDevice: all[path.description] = "whiteout"
                default: all[path.description] = String(decoding: try root.open(at: path, .readOnly).readAll(limit: 1 << 22), as: UTF8.self)
                }
            }
        }
        return all
    }

    static func digest(_ text: String) -> String { ContentDigest.of(Array(text.utf8)).hex }
}
