import ComposefsBytes
import ComposefsConcurrency
import ComposefsLinuxSystem
import ComposefsOCI

/// The process that should have served an image ended before the image was mounted.
struct ServerEnded: Error, CustomStringConvertible {
    var signal: Int32

    var description: String { "the process that should serve the image with FUSE was ended by signal \(signal)" }
}

/// Serving an image with FUSE: in the foreground, or by a process of its own.
///
/// That process is this program started anew with the same arguments, which is safe whatever threads run here. It has the write end of a pipe
/// as descriptor 3, writes a byte to it once the image is mounted, and ends with a message and an exit status where it cannot be.
enum Serving {
    private static let readyVariable = "CFSOCI_FUSE_READY"
    private static let readyDescriptor: Int32 = 3

    /// Whether this process was started to serve.
    static var isServer: Bool { environment(readyVariable) == ByteString("\(readyDescriptor)") }

    /// Starts the server and returns once the image is mounted; does not return where it cannot be.
    static func start() throws {
        let pipe = try FileDescriptor.pipe()
        let child = try ChildProcess.start(
            program(), Array(Arguments.all().dropFirst()), environment: [ByteString("\(readyVariable)=\(readyDescriptor)")],
            inherited: pipe.write.raw,
            isDetached: true)
        let read = pipe.keepRead()
        let isReady = try withUnsafeTemporaryAllocation(byteCount: 1, alignment: 1) { try read.read(into: $0) } == 1
        if isReady { return }
        let status = try child.wait()
        if status > 128 { throw ServerEnded(signal: status - 128) }
        Cfsoci.end(status == 0 ? 1 : status)
    }

    /// By its name, which process lists show, unless another file has it by now.
    private static func program() -> ByteString {
        let proc: ByteString = "/proc/self/exe"
        guard let path = try? FileDescriptor.currentDirectory.readLink(at: proc),
            let named = try? FileDescriptor.currentDirectory.status(at: path, follow: true),
            let running = try? FileDescriptor.currentDirectory.status(at: proc, follow: true),
            named.device == running.device, named.inode == running.inode
        else { return proc }
        return path
    }

    /// Serves until the image is unmounted, by whomever, or a signal ends it, which unmounts it.
    static func run(_ prepare: () throws -> ServedImage) throws {
        // Before there are threads, so that none of them takes a signal.
        Host.blockEndSignals()
        let image = try prepare()
        let isStarted = startThread("signals") {
            _ = Host.waitForEndSignal()
            end(image)
        }
        guard isStarted else {
            try? image.unmount(lazily: true)
            throw SystemError(operation: "start a thread", errno: .tryAgain)
        }
        // Nothing of the caller's is kept in use.
        try? Host.changeDirectory(to: "/")
        if isServer { detach(image) }
        image.run()
    }

    /// A signal came. Who still has files open loses them: the connection ends with this process.
    private static func end(_ image: ServedImage) -> Never {
        do throws(FuseError) {
            try image.unmount()
            // What follows ends the process by itself; a second signal ends it at once.
            _ = Host.waitForEndSignal()
        } catch {
            // In use; or somebody has unmounted it, perhaps lazily, so that it would last as long as its users.
            try? image.unmount(lazily: true)
        }
        Cfsoci.end(0)
    }

    /// Tells the one who waits, and lets go of the terminal.
    private static func detach(_ image: ServedImage) {
        let ready = FileDescriptor(owning: readyDescriptor)
        try? FileDescriptor.open("/dev/null", .readWrite).replace(StandardStream.error.rawValue)
        do throws(SystemError) {
            try ready.writeAll([1])
        } catch {
            // Whoever wanted it was ended meanwhile, and does not know that it is mounted.
            try? image.unmount(lazily: true)
            Cfsoci.end(1)
        }
    }
}
