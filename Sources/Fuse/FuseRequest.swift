/// A request of the kernel, in the buffer into which it was read.
struct FuseRequest {
    /// Nil if this server does not know the operation.
    let operation: FuseOperation?
    /// The number that identifies the request in its reply.
    let unique: UInt64
    /// The inode of the request; 1 is the root.
    let node: UInt64
    let uid: UInt32
    /// The thread that sent the request; 0 if it is outside this process's PID namespace.
    let pid: UInt32
    /// The bytes after the header.
    let arguments: UnsafeRawBufferPointer

    /// Nil if the bytes are not a complete request.
    init?(_ bytes: UnsafeRawBufferPointer) {
        // struct fuse_in_header: length, operation, unique, node, uid, gid, pid, extensions, padding.
        guard bytes.count >= FuseProtocol.requestHeaderSize, Int(exactly: bytes.load(0, UInt32.self)) == bytes.count else { return nil }
        operation = FuseOperation(rawValue: bytes.load(4, UInt32.self))
        unique = bytes.load(8, UInt64.self)
        node = bytes.load(16, UInt64.self)
        uid = bytes.load(24, UInt32.self)
        pid = bytes.load(32, UInt32.self)
        arguments = UnsafeRawBufferPointer(rebasing: bytes[FuseProtocol.requestHeaderSize...])
    }

    /// The argument of an operation on a name; nil if it is missing.
    var name: UnsafeRawBufferPointer? { name(at: 0) }

    /// The NUL-terminated name at an offset in the arguments.
    func name(at offset: Int) -> UnsafeRawBufferPointer? {
        guard offset < arguments.count, let end = arguments[offset...].firstIndex(of: 0), end > offset else { return nil }
        return UnsafeRawBufferPointer(rebasing: arguments[offset..<end])
    }

    /// An integer at an offset in the arguments; nil if they are too short.
    func integer<Value: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, _ type: Value.Type) -> Value? {
        guard offset >= 0, arguments.count - offset >= MemoryLayout<Value>.size else { return nil }
        return arguments.load(offset, type)
    }
}

/// struct fuse_init_in.
struct FuseInitialization {
    let major: UInt32
    let minor: UInt32
    let maximumReadAhead: UInt32
    let flags: FuseFlags

    init?(_ request: FuseRequest) {
        guard request.operation == .initialize, let major = request.integer(0, UInt32.self), let minor = request.integer(4, UInt32.self)
        else { return nil }
        self.major = major
        self.minor = minor
        maximumReadAhead = request.integer(8, UInt32.self) ?? 0
        let low = UInt64(request.integer(12, UInt32.self) ?? 0)
        // The second word is valid only if the first one says so.
        let isExtended = FuseFlags(rawValue: low).contains(.extended)
        flags = FuseFlags(rawValue: low | (isExtended ? UInt64(request.integer(16, UInt32.self) ?? 0) << 32 : 0))
    }
}

/// struct fuse_read_in, for files and directories.
struct FuseRead {
    let offset: UInt64
    let size: Int

    init?(_ request: FuseRequest) {
        guard let offset = request.integer(8, UInt64.self), let size = request.integer(16, UInt32.self) else { return nil }
        self.offset = offset
        self.size = Int(size)
    }
}

extension UnsafeRawBufferPointer {
    /// In the machine's byte order. The caller has checked the bounds.
    fileprivate func load<Value: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, _: Value.Type) -> Value {
        loadUnaligned(fromByteOffset: offset, as: Value.self)
    }
}
