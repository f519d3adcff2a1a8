public import ComposefsBytes
public import ComposefsLinuxSystem
public import ComposefsVarlink

/// Why no socket can be made at a path.
public enum ListeningError: Error, Hashable, Sendable, CustomStringConvertible {
    /// A file that is no socket has the name.
    case notSocket(ByteString)
    /// Another process serves there.
    case inUse(ByteString)
    case tooLong(ByteString)

    public var description: String {
        switch self {
        case .notSocket(let path): "\(path): there is a file that is no socket; remove it, or choose another path"
        case .inUse(let path): "\(path): another process serves there"
        case .tooLong(let path): "\(path): the path of a socket has at most 107 bytes, and this one has \(path.count)"
        }
    }
}

/// A listening socket in the file system. One that an ended process has left is replaced, and nothing else is.
public struct ListeningPath: Sendable {
    public let listener: LocalListener
    private let path: ByteString
    private let device: UInt64
    private let inode: UInt64

    /// - Throws: `ListeningError`, `SystemError`.
    public init(_ address: VarlinkAddress) throws {
        let path = address.path
        guard path.count <= 107 else { throw ListeningError.tooLong(path) }
        try Self.removeStale(path)
        let listener = try Self.bind(path, address.mode)
        let status = try FileDescriptor.currentDirectory.status(at: path)
        // The umask may have taken away what the address asks for.
        if status.mode & 0o777 != address.mode { try FileDescriptor.currentDirectory.changeMode(at: path, address.mode) }
        self.path = path
        self.listener = listener
        device = status.device
        inode = status.inode
    }

    private static func bind(_ path: ByteString, _ mode: UInt32) throws -> LocalListener {
        do throws(SystemError) {
            return try LocalListener.bind(to: path, mode: mode)
        } catch {
            // Another process was faster.
            if error.errno == .addressInUse { throw ListeningError.inUse(path) }
            throw error
        }
    }

    /// Removes the socket, unless something else has its name now.
    public func remove() {
        guard let status = try? FileDescriptor.currentDirectory.statusIfPresent(at: path), status.device == device, status.inode == inode
        else { return }
        try? FileDescriptor.currentDirectory.unlink(at: path)
    }

    /// Removes a socket at which no process listens.
    private static func removeStale(_ path: ByteString) throws {
        let here = FileDescriptor.currentDirectory
        guard let found = try here.statusIfPresent(at: path) else { return }
        guard found.kind == .socket else { throw ListeningError.notSocket(path) }
        do throws(SystemError) {
            _ = try LocalConnection.connect(to: path)
            throw SystemError("listen at", path, .addressInUse)
        } catch {
            switch error.errno {
            case .connectionRefused: break
            case .noEntry: return
            // It answers, or it is of another type, or its queue is full, or it belongs to another user.
            default: throw ListeningError.inUse(path)
            }
        }
        // Under another name first: what was put there in the meantime is put back.
        let (directory, _) = FileDescriptor.split(path)
        let aside = directory + ByteString("/.cfsoci-varlink-\(Host.processID)")
        try here.rename(at: path, to: aside, flags: .noReplace)
        guard try here.status(at: aside).kind == .socket else {
            try here.rename(at: aside, to: path, flags: .noReplace)
            throw ListeningError.notSocket(path)
        }
        try here.unlink(at: aside)
    }
}
