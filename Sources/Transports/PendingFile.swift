import ComposefsBytes
import ComposefsLinuxSystem

/// A file that gets its name when it is complete, in the place of what had the name before. Until then it has none, or on file systems
/// without O_TMPFILE a passing one; its lock tells that a process is still at it.
struct PendingFile: ~Copyable {
    /// How passing names look: prefix, random letters, suffix.
    struct Naming: Sendable {
        var prefix: ByteString
        var suffix: ByteString = ""
        private static let randomCount = 12

        init(prefix: ByteString, suffix: ByteString = "") {
            self.prefix = prefix
            self.suffix = suffix
        }

        func make() -> ByteString { prefix + ByteString(Host.randomName(Self.randomCount)) + suffix }

        func matches(_ name: ByteString) -> Bool {
            name.count == prefix.count + Self.randomCount + suffix.count && name.hasPrefix(prefix)
                && name.bytes.suffix(suffix.count).elementsEqual(suffix.bytes)
        }
    }

    /// Open for reading and writing.
    let file: FileDescriptor
    private let passingName: ByteString
    private var isNamed: Bool
    private static let attempts = 16

    /// - Parameters:
    ///   - directory: where it gets its name, and where the passing one is.
    ///   - mode: less the umask.
    init(in directory: borrowing FileDescriptor, _ naming: Naming, mode: UInt32 = 0o644) throws(SystemError) {
        let made = try Self.make(in: directory, naming, mode)
        file = FileDescriptor(owning: made.file)
        passingName = made.name
        isNamed = made.isNamed
    }

    private static func make(
        in directory: borrowing FileDescriptor, _ naming: Naming, _ mode: UInt32
    ) throws(SystemError) -> (file: Int32, name: ByteString, isNamed: Bool) {
        do throws(SystemError) {
            let file = try directory.openTemporary(mode: mode)
            try file.lock(.exclusive)
            return (file: file.release(), name: naming.make(), isNamed: false)
        } catch {
            guard error.lacksTemporaryFiles else { throw error }
        }
        for _ in 0..<attempts {
            let name = naming.make()
            do throws(SystemError) {
                let file = try directory.open(at: name, [.readWrite, .create, .exclusive, .noFollow], mode: mode)
                // One that looks for abandoned files may have come between making and locking it.
                guard try file.lock(.exclusive, wait: false), let named = try directory.statusIfPresent(at: name),
                    named.isSameFile(as: try file.status())
                else { continue }
                return (file: file.release(), name: name, isNamed: true)
            } catch {
                guard error.errno == .exists else { throw error }
            }
        }
        throw SystemError(operation: "create a temporary file in", path: directory.kernelPath, errno: .exists)
    }

    /// Makes the content durable and gives it the name. The name itself is durable once the directory has been synced.
    ///
    /// - Throws: ESTALE if it is another user's file that has the name now: in a directory that others can write to, they can put theirs in
    ///   the place of the passing name at any moment.
    mutating func publish(in directory: borrowing FileDescriptor, as name: ByteString) throws(SystemError) {
        try file.syncData()
        if !isNamed {
            // Through a second name: linking does not replace what is there.
            guard try directory.link(temporary: file, at: passingName) else { throw SystemError("link", passingName, .exists) }
            isNamed = true
        }
        try directory.rename(at: passingName, to: name)
        isNamed = false
        guard let named = try directory.statusIfPresent(at: name) else { return }
        let own = try file.status()
        guard named.isSameFile(as: own) || named.uid == own.uid else { throw SystemError("rename to", name, .stale) }
    }

    /// Takes the passing name away, if it has one.
    mutating func abandon(in directory: borrowing FileDescriptor) {
        guard isNamed else { return }
        isNamed = false
        try? directory.unlink(at: passingName)
    }

    /// Removes what processes have left that were killed. Those that run hold their locks; other users' files are theirs.
    static func removeAbandoned(in directory: borrowing FileDescriptor, _ naming: Naming) {
        guard let entries = try? directory.entries() else { return }
        for entry in entries where naming.matches(entry.name) {
            guard let file = try? directory.openIfPresent(at: entry.name, [.readOnly, .noFollow, .nonBlocking]),
                let status = try? file.status(), status.kind == .regular, status.uid == Host.effectiveUserID,
                (try? file.lock(.exclusive, wait: false)) == true
            else { continue }
            try? directory.unlink(at: entry.name)
        }
    }
}

extension FileStatus {
    fileprivate func isSameFile(as other: FileStatus) -> Bool { inode == other.inode && device == other.device }
}
