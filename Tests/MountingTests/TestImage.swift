import ComposefsBytes
import ComposefsLinuxSystem
import ComposefsMounting
import ComposefsTestSupport
import Glibc
import Testing

/// A directory for mount points, an image and its objects. `inline` has its content in the image, `external` and `sub/large` are objects,
/// the object of `tampered` has another digest than the image says, and the root has the whiteouts that hide the objects' directories.
///
/// mkfs.erofs makes the image from a tree with overlayfs's attributes, so that the image does not depend on this project's code.
struct TestImage {
    var base: ByteString
    /// The directory's own name.
    var name: ByteString { ByteString(Array(base.bytes.split(separator: UInt8(ascii: "/")).last ?? [])) }
    var image: ByteString { base + "/image.erofs" }
    var objects: ByteString { base + "/objects" }
    var target: ByteString { base + "/target" }

    static let external = [UInt8](repeating: UInt8(ascii: "x"), count: 5000)
    static let large = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 13 &+ ($0 >> 10)) }

    /// Cancels the test, with the reason, if images cannot be made or mounted.
    static func requireMounting() throws {
        try ComposefsTestSupport.requireMounting()
        guard (try? FileDescriptor.open("/usr/bin/mkfs.erofs", .pathOnly)) != nil else { try Test.cancel("needs mkfs.erofs (erofs-utils)") }
    }

    /// The directory for new images, on a file system with fs-verity if the variable names one.
    static var parent: ByteString { TestFolder.parentWithVerity }

    static func with(in parent: ByteString = parent, verity: Bool = false, _ body: (TestImage) throws -> Void) throws {
        try requireMounting()
        let test = TestImage(base: parent + "/" + ByteString("mounting-" + Host.randomName()))
        try FileDescriptor.makeDirectory(test.base, mode: 0o755)
        defer {
            while (try? unmount(test.target, lazily: true)) != nil {}
            try? removeTree(test.base)
        }
        try test.make(verity: verity)
        try body(test)
    }

    func makeDirectory(_ name: ByteString) throws -> ByteString {
        try FileDescriptor.makeDirectory(base + "/" + name, mode: 0o755)
        return base + "/" + name
    }

    func open(_ path: ByteString) throws -> FileDescriptor { try FileDescriptor.open(path, .readOnly) }

    /// A file's content through the mount.
    func mounted(_ path: ByteString) throws -> [UInt8] {
        try FileDescriptor.open(target + "/" + path, .readOnly).readAll(limit: 1 << 20)
    }

    func mount(requireVerity: Bool = false, _ options: MountOptions = MountOptions()) throws {
        try mountImage(try open(image), objects: try open(objects), verity: requireVerity ? .required : .none, at: target, options: options)
    }

    /// A copy of a file on a tmpfs, from which kernels need a loop device, or the file itself. The default file is the image.
    func withImage(_ file: ByteString? = nil, onTmpfs: Bool, _ body: (ByteString) throws -> Void) throws {
        let file = file ?? image
        guard onTmpfs else { return try body(file) }
        guard (try? FileDescriptor.open("/dev/shm", .pathOnly)) != nil else { return }
        guard (try? FileDescriptor.open("/dev/loop-control", .readWrite)) != nil else { return }
        let copy = "/dev/shm/" + name
        try FileDescriptor.open(copy, [.writeOnly, .create]).writeAll(try open(file).readAll(limit: 1 << 24))
        defer { try? FileDescriptor.currentDirectory.unlink(at: copy) }
        try body(copy)
    }

    private func make(verity: Bool) throws {
        _ = try makeDirectory("objects")
        _ = try makeDirectory("target")
        let source = try makeDirectory("source")
        let root = try FileDescriptor.open(source, [.readOnly, .directory])
        try root.open(at: "inline", [.writeOnly, .create], mode: 0o640).writeAll(Array("in the image\n".utf8))
        try root.changeMode(at: "inline", 0o640)
        try root.changeOwner(at: "inline", uid: 1000, gid: 1001)
        try root.symlink(target: "sub/large", at: "link")
        try root.makeDirectory(at: "sub", mode: 0o755)
        try addFile(root, "external", Self.external, verity)
        try addFile(root, "sub/large", Self.large, verity)
        try addFile(root, "tampered", Array("what the image wants".utf8), verity, actually: Array("what was put there..".utf8))
        for first in "0123456789abcdef".utf8 {
            for second in "0123456789abcdef".utf8 {
                try root.makeNode(at: ByteString([first, second]), mode: 0o020644)
            }
        }
        try run("/usr/bin/mkfs.erofs", ["--quiet", image, source])
        if verity { try open(image).enableVerity(algorithm: 1) }
    }

    /// A sparse file of the right size whose attributes name the object and the digest of its content.
    private func addFile(
        _ root: borrowing FileDescriptor, _ name: ByteString, _ content: [UInt8], _ verity: Bool, actually: [UInt8]? = nil
    ) throws {
        let file = try root.open(at: name, [.writeOnly, .create], mode: 0o644)
        try file.truncate(to: UInt64(content.count))
        // struct ovl_metacopy: version 0, length, flags 0, digest algorithm, digest.
        var digest: [UInt8] = []
        let objectName: ByteString
        if verity {
            digest = try writeObject("wanted", content, verity: true)
            objectName = ByteString(Hex.encode(digest))
        } else {
            objectName = ByteString("00" + Hex.encode(content.prefix(20)))
        }
        let directory = objects + "/" + ByteString(objectName.bytes.prefix(2))
        try FileDescriptor.currentDirectory.makeDirectoryIfMissing(at: directory)
        let path = ByteString(objectName.bytes.prefix(2)) + "/" + ByteString(objectName.bytes.dropFirst(2))
        _ = try writeObject(path, actually ?? content, verity: verity)
        try file.setExtendedAttribute("trusted.overlay.redirect", "/" + path)
        let metacopy: [UInt8] = digest.isEmpty ? [] : [0, UInt8(4 + digest.count), 0, 1] + digest
        try file.setExtendedAttribute("trusted.overlay.metacopy", ByteString(metacopy))
    }

    private func writeObject(_ path: ByteString, _ content: [UInt8], verity: Bool) throws -> [UInt8] {
        let full = objects + "/" + path
        do {
            try FileDescriptor.open(full, [.writeOnly, .create, .truncate], mode: 0o644).writeAll(content)
        }
        defer { if path == "wanted" { try? FileDescriptor.currentDirectory.unlink(at: full) } }
        guard verity else { return [] }
        let file = try open(full)
        try file.enableVerity(algorithm: 1)
        return try #require(try file.measureVerity()).digest
    }
}

/// Runs a program; an exit status other than 0 is an issue.
func run(_ program: ByteString, _ arguments: [ByteString]) throws {
    #expect(wait(for: try start(program, arguments)) == 0, "\(program) failed")
}

/// Starts a program.
func start(_ program: ByteString, _ arguments: [ByteString]) throws -> pid_t {
    var strings = ([program] + arguments).map { argument in strdup(String(decoding: argument.bytes, as: UTF8.self)) }
    defer { for string in strings { free(string) } }
    strings.append(nil)
    var child: pid_t = 0
    let result = posix_spawn(&child, String(decoding: program.bytes, as: UTF8.self), nil, nil, &strings, environ)
    if result != 0 { throw SystemError("start", program, Errno(rawValue: result)) }
    return child
}

func stop(_ child: pid_t) {
    kill(child, SIGKILL)
    _ = wait(for: child)
}

private func wait(for child: pid_t) -> Int32 {
    var status: Int32 = 0
    while waitpid(child, &status, 0) == -1 && errno == EINTR {}
    return status
}

/// The error that `body` throws, or nil.
func failure(_ body: () throws -> Void) -> MountError? {
    do {
        try body()
        return nil
    } catch {
        return error as? MountError
    }
}
