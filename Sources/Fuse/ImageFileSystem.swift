import ComposefsBytes
import ComposefsEROFS
import ComposefsFileTree
import ComposefsHashing
import ComposefsLinuxSystem

/// The outcome of a request.
enum FuseOutcome {
    /// The kernel expects no reply.
    case silent
    /// The reply that was written.
    case reply
    case error(Errno)
    /// A number of bytes of an object, from an offset. The object may have to be closed afterwards.
    case content(OpenObject, offset: UInt64, count: Int, closes: Bool)
}

/// Answers requests from an image and its objects. It keeps no state about the kernel's lookups: a node's number is that of the inode in
/// the image, so that forgetting a node needs no work.
final class ImageFileSystem: Sendable {
    private let image: ErofsImage
    let objects: ObjectFiles
    /// Whether `trusted.` attributes are visible: only root of the initial user namespace may see them.
    private let showsTrusted: Bool
    /// Whether the kernel takes "not implemented" for opens of files and directories as "do not ask again".
    private let needsNoOpen: Bool
    private let needsNoOpenDirectory: Bool
    private let log: @Sendable (String) -> Void

    init(
        _ image: ErofsImage, _ objects: ObjectFiles, showsTrusted: Bool, needsNoOpen: Bool, needsNoOpenDirectory: Bool,
        log: @escaping @Sendable (String) -> Void
    ) {
        self.image = image
        self.objects = objects
        self.showsTrusted = showsTrusted
        self.needsNoOpen = needsNoOpen
        self.needsNoOpenDirectory = needsNoOpenDirectory
        self.log = log
    }

    /// - Parameters:
    ///   - reply: An empty reply, which is filled if the outcome is `.reply`.
    ///   - buffer: Working memory of this thread.
    func handle(_ request: FuseRequest, _ reply: inout FuseReply, _ buffer: UnsafeMutableRawBufferPointer) -> FuseOutcome {
        guard let operation = request.operation else { return .error(.noSystemCall) }
        if operation.isChange { return .error(.readOnlyFileSystem) }
        switch operation {
        // Nothing needs to be forgotten, because a node has no state.
        case .forget, .forgetMany, .notifyReply: return .silent
        case .interrupt:
            if let unique = request.integer(0, UInt64.self) { objects.verifier.interrupt(unique) }
            return .silent
        case .release:
            objects.close(request.node)
            return .reply
        case .destroy, .releaseDirectory: return .reply
        case .ioctl: return .error(.notTerminal)
        case .statFileSystem:
            statFileSystem(&reply)
            return .reply
        case .lookup, .getAttributes, .readLink, .open, .read, .openDirectory, .readDirectory, .readDirectoryPlus, .getExtendedAttribute,
            .listExtendedAttributes:
            do throws(ErofsError) {
                let inode = try image.inode(request.node == FuseProtocol.rootNode ? image.rootNumber : request.node)
                return try handle(operation, request, inode, &reply, buffer)
            } catch {
                log("inode \(request.node): \(error)")
                return .error(.inputOutput)
            }
        // The kernel handles these itself when the server does not implement them.
        default: return .error(.noSystemCall)
        }
    }

    private func handle(
        _ operation: FuseOperation, _ request: FuseRequest, _ inode: ErofsInode, _ reply: inout FuseReply,
        _ buffer: UnsafeMutableRawBufferPointer
    ) throws(ErofsError) -> FuseOutcome {
        switch operation {
        case .lookup: return try lookup(request, inode, &reply)
        case .getAttributes:
            reply.integer(FuseProtocol.validity)
            reply.integer(0 as UInt64)
            reply.attributes(inode, node: node(inode))
            return .reply
        case .readLink:
            guard inode.kind == .symbolicLink else { return .error(.invalidArgument) }
            reply.advance(try image.read(inode, at: 0, into: reply.rest))
            return .reply
        case .open: return try open(request, inode, &reply, buffer)
        case .read: return try read(request, inode, &reply, buffer)
        case .openDirectory:
            if needsNoOpenDirectory { return .error(.noSystemCall) }
            guard inode.kind == .directory else { return .error(.notDirectory) }
            openReply(&reply, [.keepCache, .cacheDirectory])
            return .reply
        case .readDirectory, .readDirectoryPlus:
            return try readDirectory(request, inode, &reply, withAttributes: operation == .readDirectoryPlus)
        case .getExtendedAttribute: return try attribute(request, inode, &reply)
        case .listExtendedAttributes: return try attributeNames(request, inode, &reply)
        default: return .error(.noSystemCall)
        }
    }

    /// The node number of the protocol, which users also see as the inode number: 1 for the root, otherwise the image's number.
    private func node(_ inode: ErofsInode) -> UInt64 { inode.number == image.rootNumber ? FuseProtocol.rootNode : inode.number }

    // MARK: Names

    private func lookup(_ request: FuseRequest, _ directory: ErofsInode, _ reply: inout FuseReply) throws(ErofsError) -> FuseOutcome {
        guard let name = request.name else { return .error(.invalidArgument) }
        guard name.count <= 255 else { return .error(.nameTooLong) }
        var found: ErofsInode?
        if directory.kind == .directory {
            found = try image.lookup(name, in: directory)
        } else if name.elementsEqual(CollectionOfOne(UInt8(ascii: "."))) {
            // The kernel asks for these names when it opens a file handle from an earlier mount.
            found = directory
        } else {
            return .error(.notDirectory)
        }
        reply.entry(found, node: found.map(node) ?? 0, number: found.map(node) ?? 0)
        return .reply
    }

    private func readDirectory(
        _ request: FuseRequest, _ directory: ErofsInode, _ reply: inout FuseReply, withAttributes: Bool
    ) throws(ErofsError) -> FuseOutcome {
        guard directory.kind == .directory else { return .error(.notDirectory) }
        guard let range = FuseRead(request) else { return .error(.invalidArgument) }
        let limit = min(range.size, reply.available) + reply.count
        try image.forEachEntry(of: directory, from: range.offset) { name, inode, next in
            let start = reply.count
            if withAttributes {
                guard start + FuseProtocol.entrySize <= limit else { return false }
                let isDot = name.count <= 2 && name.allSatisfy { $0 == UInt8(ascii: ".") }
                // The kernel counts every entry as a lookup, except these two, for which it expects none.
                reply.entry(isDot ? nil : inode, node: isDot ? 0 : node(inode), number: node(inode))
            }
            if reply.directoryEntry(name, inode, number: node(inode), next: next, limit: limit) { return true }
            reply.rewind(to: start)
            return false
        }
        return .reply
    }

    // MARK: Content

    private func open(
        _ request: FuseRequest, _ inode: ErofsInode, _ reply: inout FuseReply, _ buffer: UnsafeMutableRawBufferPointer
    ) throws(ErofsError) -> FuseOutcome {
        guard let flags = request.integer(0, UInt32.self) else { return .error(.invalidArgument) }
        guard OpenFlags(rawValue: Int32(bitPattern: flags)).isDisjoint(with: [.writeOnly, .readWrite, .truncate]) else {
            return .error(.readOnlyFileSystem)
        }
        guard inode.kind != .directory else { return .error(.isDirectory) }
        guard inode.kind == .regular else { return .error(.noDeviceOrAddress) }
        if needsNoOpen { return .error(.noSystemCall) }
        if let object = objects.reuse(request.node) {
            openReply(&reply, object)
            return .reply
        }
        guard case .object(let id, _) = try image.content(of: inode) else {
            openReply(&reply, [.keepCache, .noFlush])
            return .reply
        }
        do throws(ObjectFault) {
            let object = try objects.open(
                request.node, id, size: inode.size, request: Waiting(unique: request.unique, pid: request.pid), buffer: buffer)
            openReply(&reply, object)
            return .reply
        } catch {
            if error.errno != .interrupted { log(error.description) }
            return .error(error.errno)
        }
    }

    private func openReply(_ reply: inout FuseReply, _ object: OpenObject) {
        openReply(&reply, object.backing == nil ? [.keepCache, .noFlush] : [.passthrough, .noFlush], backing: object.backing ?? 0)
    }

    /// struct fuse_open_out.
    private func openReply(_ reply: inout FuseReply, _ flags: FuseOpenFlags, backing: Int32 = 0) {
        reply.integer(0 as UInt64)
        reply.integer(flags.rawValue)
        reply.integer(backing)
    }

    private func read(
        _ request: FuseRequest, _ inode: ErofsInode, _ reply: inout FuseReply, _ buffer: UnsafeMutableRawBufferPointer
    ) throws(ErofsError) -> FuseOutcome {
        guard let range = FuseRead(request) else { return .error(.invalidArgument) }
        guard inode.kind == .regular else { return .error(inode.kind == .directory ? .isDirectory : .invalidArgument) }
        let limit = min(range.size, reply.available)
        func content(_ object: OpenObject) -> FuseOutcome {
            let count = Int(clamping: min(UInt64(limit), object.size > range.offset ? object.size - range.offset : 0))
            return .content(object, offset: range.offset, count: count, closes: needsNoOpen)
        }
        if let object = needsNoOpen ? objects.reuse(request.node) : objects.object(request.node) { return content(object) }
        switch try image.content(of: inode) {
        case .inImage:
            reply.advance(try image.read(inode, at: range.offset, into: UnsafeMutableRawBufferPointer(rebasing: reply.rest[..<limit])))
            return .reply
        case .hole:
            reply.zeros(Int(clamping: min(UInt64(limit), inode.size > range.offset ? inode.size - range.offset : 0)))
            return .reply
        case .object(let id, _):
            // The file is not open, so nothing has verified its content.
            guard needsNoOpen else { return .error(.inputOutput) }
            do throws(ObjectFault) {
                let waiting = Waiting(unique: request.unique, pid: request.pid)
                return content(try objects.open(request.node, id, size: inode.size, request: waiting, buffer: buffer))
            } catch {
                if error.errno != .interrupted { log(error.description) }
                // A read must not report a missing file.
                return .error(error.errno == .noEntry ? .inputOutput : error.errno)
            }
        }
    }

    /// Copies bytes of an object that is still the one that was verified. Returns an error number if it is not, or has fewer bytes.
    func copy(
        _ object: OpenObject, from offset: UInt64, _ count: Int, of request: FuseRequest, _ reply: inout FuseReply,
        _ buffer: UnsafeMutableRawBufferPointer
    ) -> Errno? {
        let waiting = Waiting(unique: request.unique, pid: request.pid)
        do throws(ObjectFault) {
            // A file that changes repeatedly is given up.
            for _ in 0..<4 {
                let identity = try objects.vouch(object, request: waiting, buffer: buffer)
                let part = UnsafeMutableRawBufferPointer(rebasing: reply.rest[..<min(count, reply.available)])
                let found = try system(object.id) { () throws(SystemError) in try object.file.preadFully(into: part, at: offset) }
                guard identity == nil || object.currentIdentity == identity else { continue }
                guard found == part.count else { throw .damaged(object.id, "it is truncated") }
                reply.advance(found)
                return nil
            }
            throw .damaged(object.id, "it changes while it is being read")
        } catch {
            if error.errno != .interrupted { log(error.description) }
            return error.errno == .interrupted ? .interrupted : .inputOutput
        }
    }

    // MARK: Attributes

    private func attribute(_ request: FuseRequest, _ inode: ErofsInode, _ reply: inout FuseReply) throws(ErofsError) -> FuseOutcome {
        // struct fuse_getxattr_in: size, padding; followed by the name.
        guard let size = request.integer(0, UInt32.self), let name = request.name(at: 8) else { return .error(.invalidArgument) }
        guard inode.hasAttributes else { return .error(.noData) }
        for attribute in try image.attributes(of: inode) where attribute.name.bytes.elementsEqual(name) {
            return attribute.value.bytes.withUnsafeBytes { sized($0, size, &reply) }
        }
        return .error(.noData)
    }

    private func attributeNames(_ request: FuseRequest, _ inode: ErofsInode, _ reply: inout FuseReply) throws(ErofsError) -> FuseOutcome {
        guard let size = request.integer(0, UInt32.self) else { return .error(.invalidArgument) }
        var names: [UInt8] = []
        for attribute in try image.attributes(of: inode) {
            if attribute.name.hasPrefix("trusted."), !(showsTrusted && request.uid == 0) { continue }
            names += attribute.name.bytes + [0]
        }
        return names.withUnsafeBytes { sized($0, size, &reply) }
    }

    /// struct fuse_getxattr_out with the size if 0 bytes are requested, otherwise the bytes.
    private func sized(_ bytes: UnsafeRawBufferPointer, _ size: UInt32, _ reply: inout FuseReply) -> FuseOutcome {
        if size == 0 {
            reply.integer(UInt32(clamping: bytes.count))
            reply.integer(0 as UInt32)
            return .reply
        }
        guard bytes.count <= Int(size), bytes.count <= reply.available else { return .error(.outOfRange) }
        reply.append(bytes)
        return .reply
    }

    /// struct fuse_kstatfs: the image is the whole file system, and it is full.
    private func statFileSystem(_ reply: inout FuseReply) {
        reply.integer(UInt64(image.byteCount / 4096))
        reply.integer(0 as UInt64)
        reply.integer(0 as UInt64)
        reply.integer(UInt64(image.inodeCount))
        reply.integer(0 as UInt64)
        reply.integer(4096 as UInt32)
        reply.integer(255 as UInt32)
        reply.integer(4096 as UInt32)
        reply.zeros(4 + 24)
    }
}
