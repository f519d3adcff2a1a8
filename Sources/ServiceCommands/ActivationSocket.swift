import ComposefsBytes
import ComposefsCommandSupport
import ComposefsLinuxSystem

/// The socket that the service manager, or `varlinkctl exec:`, has passed to this process (sd_listen_fds(3)).
struct ActivationSocket {
    /// The first descriptor that is passed (SD_LISTEN_FDS_START).
    private static let first: Int32 = 3
    private static let mostSockets: Int32 = 1024

    let shared: SharedDescriptor
    /// Whether connections are to be accepted; otherwise it is one.
    let isListening: Bool

    /// Nil if none is passed to this process. All others are closed.
    ///
    /// - Throws: `CommandError` if it is not clear which one is meant, or it is no stream socket of the local machine.
    init?() throws {
        guard let process = environment("LISTEN_PID")?.utf8Text, Int32(process) == Host.processID,
            let text = environment("LISTEN_FDS")?.utf8Text, let count = Int32(text), (1...Self.mostSockets).contains(count)
        else { return nil }
        let all = (0..<count).map { index in
            FileDescriptor.closeOnExec(Self.first + index)
            return SharedDescriptor(FileDescriptor(owning: Self.first + index))
        }
        let names = environment("LISTEN_FDNAMES")?.bytes.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false) ?? []
        let named = zip(all, names).filter { $0.1.elementsEqual("varlink".utf8) }.map(\.0)
        let candidates = named.isEmpty ? all : named
        guard candidates.count == 1, let socket = candidates.first else {
            throw CommandError(
                "\(candidates.count) sockets were passed, and one is served: name it \"varlink\" (FileDescriptorName= of the socket unit)")
        }
        do {
            isListening = try socket.descriptor.isListeningLocally()
        } catch {
            throw CommandError("the descriptor that was passed is no stream socket of this machine: \(error)")
        }
        shared = socket
    }
}
