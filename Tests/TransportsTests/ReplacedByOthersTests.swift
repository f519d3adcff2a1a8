import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsTransports
import Glibc
import Synchronization
import Testing

private let image = SourcesImage([[1, 2, 3]])

/// Another user who acts directly after a call of this thread: what the call named is replaced by a file or directory of that user.
private final class OtherUser: SystemCallObserver {
    private static let uid: UInt32 = 12345
    private let thread = pthread_self()
    private let kind: SystemCallKind
    private let name: ByteString
    private let path: ByteString
    private let count = Atomic<Int>(0)
    /// How often the call was made.
    var swaps: Int { count.load(ordering: .sequentiallyConsistent) }

    /// - Parameters:
    ///   - name: the path of the call.
    ///   - path: where the same file is.
    init(after kind: SystemCallKind, of name: ByteString, at path: ByteString) { (self.kind, self.name, self.path) = (kind, name, path) }

    func before(_ call: SystemCall) -> Errno? { nil }

    func after(_ call: SystemCall, result: Int) {
        guard pthread_self() == thread, result >= 0, call.kind == kind, call.path.map({ ByteString($0) }) == name,
            count.add(1, ordering: .sequentiallyConsistent).oldValue == 0
        else { return }
        do {
            let here = FileDescriptor.currentDirectory
            try here.rename(at: path, to: path + ".old")
            if kind == .makeDirectory {
                try here.makeDirectory(at: path, mode: 0o755)
            } else {
                try here.open(at: path, [.writeOnly, .create, .exclusive], mode: 0o644).writeAll([9])
            }
            try here.changeOwner(at: path, uid: Self.uid, gid: Self.uid)
        } catch {
            Issue.record("\(error)")
        }
    }
}

@Suite(.enabled(if: Host.effectiveUserID == 0)) struct ReplacedByOthersTests {
    private func writes(_ destination: () throws -> any ImageDestination) throws {
        let destination = try destination()
        for bytes in image.layers + [image.config] { _ = try destination.putBlob(OutgoingBlob(bytes, digest: .of(bytes))) }
        try destination.putManifest(Manifest(parsing: image.manifest), digest: image.digest, isNamed: true)
        try destination.finish()
    }

    /// The archive has its name, and then a file of the other user has it.
    @Test func archive() throws {
        let folder = try SourcesFolder()
        try folder.write("out/mark", [1])
        let other = OtherUser(after: .rename, of: "x.tar", at: folder.path + "/out/x.tar")
        Kernel.observe(other)
        defer { Kernel.observe(nil) }
        let error = #expect(throws: SystemError.self) { try writes { try ArchiveDestination(ImageLocation(folder.at("out/x.tar:v1"))) } }
        #expect(error?.errno == .stale && error?.path == "x.tar" && other.swaps == 1, "\(String(describing: error))")
    }

    /// The same with a blob, the marker and the index of a layout.
    @Test(arguments: ["blobs/sha256/" + ContentDigest.of([1, 2, 3]).hex, "oci-layout", "index.json"])
    func layout(_ path: String) throws {
        let folder = try SourcesFolder()
        let name = ByteString(path.split(separator: "/").last.map(String.init) ?? path)
        let other = OtherUser(after: .rename, of: name, at: folder.path + "/out/" + ByteString(path))
        Kernel.observe(other)
        defer { Kernel.observe(nil) }
        let error = #expect(throws: SystemError.self) {
            try writes { try LayoutDestination(directory: ImageLocation(folder.at("out:v1"))) }
        }
        #expect(error?.errno == .stale && error?.path == name && other.swaps == 1, "\(String(describing: error))")
    }

    /// The directory of a new layout is another user's as soon as it is there: nothing is written to it.
    @Test func directory() throws {
        let folder = try SourcesFolder()
        let out = folder.path + "/out"
        let other = OtherUser(after: .makeDirectory, of: out, at: out)
        Kernel.observe(other)
        defer { Kernel.observe(nil) }
        #expect(throws: OCIError.damaged(source: out, .replacedDirectory)) {
            try LayoutDestination(directory: ImageLocation(folder.at("out:v1")))
        }
        #expect(other.swaps >= 1)
        #expect(try FileDescriptor.open(out, [.readOnly, .directory]).entries().isEmpty)
    }
}
