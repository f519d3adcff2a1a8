package import ComposefsBytes

/// A file that gets its name when it is complete, and then replaces an existing file of that name.
///
/// Until then the file has no name (O_TMPFILE), or a temporary name on file systems without O_TMPFILE. Its lock shows that a process is
/// still writing it.
package struct PendingFile: ~Copyable {
    /// The form of temporary names: prefix, random letters, suffix.
    package struct Naming: Sendable {
        var prefix: ByteString
        var suffix: ByteString = ""
        private static let randomCount = 12

        package init(prefix: ByteString, suffix: ByteString = "") {
            self.prefix = prefix
            self.suffix = suffix
        }

        func make() -> ByteString { prefix + ByteString(Host.randomName(Self.randomCount)) + suffix }

        package func matches(_ name: ByteString) -> Bool {
            name.count == prefix.count + Self.randomCount + suffix.count && name.hasPrefix(prefix)
                && name.bytes.suffix(suffix.count).elementsEqual(suffix.bytes)
        }
    }

    /// Open for reading and writing.
    package let file: FileDescriptor
    private let temporaryName: ByteString
    private var isNamed: Bool
    private static let attempts = 16

    /// - Parameters:
    ///   - directory: the directory of the file, also under its temporary name.
    ///   - naming: the form of the temporary name.
    ///   - mode: the file's permissions, before the umask is applied.
    package init(in directory: borrowing FileDescriptor, _ naming: Naming, mode: UInt32 = 0o644) throws(SystemError) {
        let made = try Self.make(in: directory, naming, mode)
        file = FileDescriptor(owning: made.file)
        temporaryName = made.name
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
                // `removeAbandoned` in another process may have removed the file before it was locked.
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

    /// Makes the content durable and gives the file its name. The name is durable once the caller has synced the directory.
    ///
    /// - Throws: ESTALE if a file of another user has the name afterwards. In a directory that other users can write to, they can replace
    ///   the file under its temporary name at any time.
    package mutating func publish(in directory: borrowing FileDescriptor, as name: ByteString) throws(SystemError) {
        try file.syncData()
        if !isNamed {
            // The temporary name is necessary because link(2) does not replace an existing file.
            guard try directory.link(temporary: file, at: temporaryName) else { throw SystemError("link", temporaryName, .exists) }
            isNamed = true
        }
        try directory.rename(at: temporaryName, to: name)
        isNamed = false
        guard let named = try directory.statusIfPresent(at: name) else { return }
        let own = try file.status()
        guard named.isSameFile(as: own) || named.uid == own.uid else { throw SystemError("rename to", name, .stale) }
    }

    /// As `publish`, but never replaces a file.
    ///
    /// - Throws: EEXIST if the name is taken.
    package mutating func publishNew(in directory: borrowing FileDescriptor, as name: ByteString) throws(SystemError) {
        try file.syncData()
        if isNamed {
            try directory.rename(at: temporaryName, to: name, flags: .noReplace)
            isNamed = false
        } else {
            guard try directory.link(temporary: file, at: name) else { throw SystemError("link", name, .exists) }
        }
    }

    /// Removes the temporary name, if the file has one.
    package mutating func abandon(in directory: borrowing FileDescriptor) {
        guard isNamed else { return }
        isNamed = false
        try? directory.unlink(at: temporaryName)
    }

    /// Removes temporary files of processes that were killed. Running processes hold locks on theirs. Files of other users stay.
    package static func removeAbandoned(in directory: borrowing FileDescriptor, _ naming: Naming) {
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
