import ComposefsBytes
import ComposefsCommandSupport
import ComposefsConcurrency
import ComposefsLinuxSystem
import ComposefsOCI

/// The process that was to serve the image ended before the image was mounted.
struct ServerEnded: Error, CustomStringConvertible {
    var signal: Int32

    var description: String { "the process that should serve the image with FUSE was ended by signal \(signal)" }
}

/// Serves an image with FUSE: in the foreground, or in a process of its own.
///
/// That process is this program, started again with the same arguments, which is safe whatever threads this process has. Its descriptor 3
/// is the write end of a pipe. It writes a byte to it once the image is mounted, or ends with a message and an exit status.
enum Serving {
    private static let readyVariable = "CFSOCI_FUSE_READY"
    private static let readyDescriptor: Int32 = 3

    /// Whether this process was started as the server.
    static var isServer: Bool { environment(readyVariable) == ByteString("\(readyDescriptor)") }

    /// Starts the server and returns once the image is mounted. After a failure it ends the process.
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

    /// The name of this program, which process lists show; /proc/self/exe if another file has that name by now.
    private static func program() -> ByteString {
        let proc: ByteString = "/proc/self/exe"
        guard let path = try? FileDescriptor.currentDirectory.readLink(at: proc),
            let named = try? FileDescriptor.currentDirectory.status(at: path, follow: true),
            let running = try? FileDescriptor.currentDirectory.status(at: proc, follow: true),
            named.device == running.device, named.inode == running.inode
        else { return proc }
        return path
    }

    /// Serves until the image is unmounted or a signal ends the process, which unmounts it.
    static func run(_ prepare: () throws -> ServedImage) throws {
        // Before threads are started, so that none of them receives a signal.
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
        // The server must not keep the caller's directory in use.
        try? Host.changeDirectory(to: "/")
        if isServer { detach(image) }
        image.run()
    }

    /// Called for a signal. Open files of other processes fail from now on, because the connection ends with this process.
    private static func end(_ image: ServedImage) -> Never {
        do throws(FuseError) {
            try image.unmount()
            // The unmounted server returns from `run` and ends the process; a second signal ends it at once.
            _ = Host.waitForEndSignal()
        } catch {
            // The mount is in use, or was unmounted lazily and still has users.
            try? image.unmount(lazily: true)
        }
        Cfsoci.end(0)
    }

    /// Informs the waiting process that the image is mounted, and detaches from the terminal.
    private static func detach(_ image: ServedImage) {
        let ready = FileDescriptor(owning: readyDescriptor)
        try? FileDescriptor.open("/dev/null", .readWrite).replace(StandardStream.error.rawValue)
        do throws(SystemError) {
            try ready.writeAll([1])
        } catch {
            // The waiting process has ended and does not know that the image is mounted.
            try? image.unmount(lazily: true)
            Cfsoci.end(1)
        }
    }
}
