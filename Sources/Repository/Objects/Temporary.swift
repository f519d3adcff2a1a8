internal import ComposefsBytes
internal import ComposefsHashing
internal import ComposefsLinuxSystem

/// A file without a name, or with a hidden name if the file system lacks O_TMPFILE. Only `link` and `replace` make it visible, complete as
/// it is. A temporary that is dropped before that is removed.
struct Temporary: ~Copyable {
    /// Open for reading and writing; for reading only after fs-verity was requested.
    var file: FileDescriptor
    /// Relative to the root.
    let directory: ByteString
    let prefix: ByteString
    let mode: UInt32
    let hidden: HiddenName?

    /// A name that is removed together with the temporary.
    struct HiddenName: ~Copyable {
        let path: ByteString
        let root: RootedDirectory
        deinit { try? root.unlink(at: path) }
    }

    /// How many hidden names are tried if they exist already.
    private static let nameAttempts = 16
    /// How often a copy is made because another process holds the file open for writing. A process that forks all the time has copies open,
    /// too.
    private static let verityCopies = 8
    /// How long each copy is waited for first, in milliseconds: most children call exec or end within this time.
    private static let verityWaits = [1, 2, 4, 8, 16]

    /// Whether the file system has no O_TMPFILE, so that the file has a hidden name.
    var isNamed: Bool {
        switch hidden {
        case .none: false
        case .some: true
        }
    }

    /// Makes a temporary.
    ///
    /// - Parameters:
    ///   - directory: relative to `root`.
    ///   - mode: subject to the umask, which removes permissions and never adds any.
    ///   - hidden: do not try O_TMPFILE.
    static func make(
        in root: borrowing RootedDirectory, directory: ByteString, named prefix: ByteString, mode: UInt32, hidden needsName: Bool = false
    ) throws(SystemError) -> Temporary {
        if !needsName {
            do throws(SystemError) {
                let file = try root.open(at: directory, [.readWrite, .temporary], mode: mode)
                return Temporary(file: file, directory: directory, prefix: prefix, mode: mode, hidden: nil)
            } catch {
                // Old kernels and file systems without O_TMPFILE take the flag for a directory opened for writing.
                switch error.errno {
                case .notSupported, .noSystemCall, .isDirectory, .invalidArgument: break
                default: throw error
                }
            }
        }
        for _ in 0..<nameAttempts {
            let path = directory + "/" + prefix + ByteString(Host.randomName(12))
            do throws(SystemError) {
                let file = try root.open(at: path, [.readWrite, .create, .exclusive], mode: mode)
                let hidden = HiddenName(path: path, root: try root.duplicate())
                return Temporary(file: file, directory: directory, prefix: prefix, mode: mode, hidden: hidden)
            } catch {
                guard error.errno == .exists else { throw error }
            }
        }
        throw SystemError("create", directory + "/" + prefix, .exists)
    }

    // MARK: Naming

    /// Gives the file its name. Returns false if the name exists.
    func link(in root: borrowing RootedDirectory, at path: ByteString) throws(SystemError) -> Bool {
        do {
            switch hidden {
            case .none: try root.link(file, at: path)
            // A second link and not a rename: it never replaces a file, on any file system. The hidden name is removed with the temporary.
            case .some(let name): try root.link(at: name.path, to: path)
            }
            return true
        } catch let error {
            guard error.errno == .exists else { throw error }
            return false
        }
    }

    /// Gives the file the name of an existing file, which it replaces in one step.
    func replace(in root: borrowing RootedDirectory, at path: ByteString) throws(SystemError) {
        for _ in 0..<Self.nameAttempts {
            let name = directory + "/" + prefix + ByteString(Host.randomName(12))
            guard try link(in: root, at: name) else { continue }
            do {
                try root.rename(at: name, to: path)
                return
            } catch let error {
                try? root.unlink(at: name)
                throw error
            }
        }
        throw SystemError("link", path, .exists)
    }

    /// The file, which disappears when it is closed.
    consuming func withoutName() -> FileDescriptor { file }

    // MARK: Verity

    /// Makes the file immutable, with fs-verity. Returns false if the file system has none. Afterwards the file is open for reading only.
    /// May be called again when the kernel has refused the signature.
    mutating func enableVerity(
        _ algorithm: VerityAlgorithm, signature: [UInt8]? = nil, in root: borrowing RootedDirectory
    ) throws(SystemError) -> Bool {
        // The kernel refuses while any descriptor for writing is open: ours is closed here.
        file = try file.reopen([.readOnly])
        for attempt in 1... {
            do throws(SystemError) {
                return try tryVerity(algorithm, signature)
            } catch {
                // A child process that another thread forked may hold our old descriptor until it calls exec. A child that never does keeps
                // the file busy: then only a copy helps, which the child does not have open.
                guard error.errno == .textBusy, attempt <= Self.verityCopies else { throw error }
                self = try copy(in: root)
            }
        }
        return false
    }

    private func tryVerity(_ algorithm: VerityAlgorithm, _ signature: [UInt8]?) throws(SystemError) -> Bool {
        for attempt in 0... {
            do throws(SystemError) {
                try signature.withBytes { (bytes) throws(SystemError) in
                    try file.enableVerity(algorithm: algorithm.rawValue, signature: bytes)
                }
                return true
            } catch {
                switch error.errno {
                case .exists: return true
                case .notSupported, .notTerminal, .noSystemCall: return false
                case .textBusy where attempt < Self.verityWaits.count: Host.sleep(milliseconds: Self.verityWaits[attempt])
                default: throw error
                }
            }
        }
        return false
    }

    private func copy(in root: borrowing RootedDirectory) throws(SystemError) -> Temporary {
        var copy = try Temporary.make(in: root, directory: directory, named: prefix, mode: mode, hidden: isNamed)
        try copy.fill(from: file)
        copy.file = try copy.file.reopen([.readOnly])
        return copy
    }

    func fill(from source: borrowing FileDescriptor) throws(SystemError) {
        try withTemporaryBuffer { (buffer) throws(SystemError) in
            var parts = FileParts(into: buffer)
            while let part = try parts.next(of: source) { try file.writeAll(part) }
        }
    }
}

/// A buffer for reading files in parts.
func withTemporaryBuffer<Value: ~Copyable, Failure: Error>(
    _ body: (UnsafeMutableRawBufferPointer) throws(Failure) -> Value
) throws(Failure) -> Value {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 128 << 10, alignment: 4096)
    defer { buffer.deallocate() }
    return try body(buffer)
}

/// The digest that the kernel holds for a file; nil if the file has no fs-verity, or a digest of an unknown algorithm.
func measuredVerity(_ file: borrowing FileDescriptor) throws(SystemError) -> ObjectID? {
    do throws(SystemError) {
        guard let measured = try file.measureVerity(), let algorithm = VerityAlgorithm(rawValue: measured.algorithm) else { return nil }
        return ObjectID(algorithm: algorithm, bytes: measured.digest)
    } catch {
        switch error.errno {
        case .notSupported, .notTerminal, .noSystemCall, .noData: return nil
        default: throw error
        }
    }
}

extension [UInt8]? {
    /// The bytes, or nil, for a body with a typed error.
    fileprivate func withBytes(_ body: (UnsafeRawBufferPointer?) throws(SystemError) -> Void) throws(SystemError) {
        guard let self else { return try body(nil) }
        try self.span.withUnsafeBytes { (bytes) throws(SystemError) in try body(bytes) }
    }
}
