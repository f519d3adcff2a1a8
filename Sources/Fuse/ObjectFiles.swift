internal import ComposefsEROFS
internal import ComposefsHashing
internal import ComposefsLinuxSystem
internal import Synchronization

/// An open and verified object.
final class OpenObject: Sendable {
    let file: FileDescriptor
    let id: ObjectID
    let size: UInt64
    let verification: Verification
    /// The kernel's number of the backing file, if the kernel reads it directly.
    let backing: Int32?
    private let backings: Backings?

    init(_ file: consuming FileDescriptor, _ id: ObjectID, size: UInt64, _ verification: Verification, _ backings: Backings?) {
        backing = backings?.open(file)
        self.backings = backings
        self.file = file
        self.id = id
        self.size = size
        self.verification = verification
    }

    deinit { if let backing { backings?.close(backing) } }

    /// Whether the content is known to be the verified one.
    var isUnchanged: Bool {
        switch verification {
        case .byKernel: true
        case .byHash(let identity, let isSettled): isSettled && currentIdentity == identity
        }
    }

    /// Nil if the file's status cannot be read.
    var currentIdentity: FileIdentity? { (try? file.status()).map { FileIdentity($0) } }
}

/// Backing files, which the kernel reads directly (FUSE_PASSTHROUGH), if it supports them.
final class Backings: Sendable {
    private let device: FuseDevice
    private let isPossible = Atomic<Bool>(true)

    /// - Parameter device: A connected device.
    init(_ device: consuming FuseDevice) { self.device = device }

    func open(_ file: borrowing FileDescriptor) -> Int32? {
        guard isPossible.load(ordering: .relaxed) else { return nil }
        do throws(Errno) {
            return try device.openBacking(file)
        } catch {
            // A missing privilege, an unsuitable file system or too deep a stack affects every object. Other errors affect only this one.
            if error != .tooManyOpenFiles, error != .outOfMemory { isPossible.store(false, ordering: .relaxed) }
            return nil
        }
    }

    func close(_ number: Int32) { device.closeBacking(number) }
}

/// The objects of open and of recently closed files, by inode.
final class ObjectFiles: Sendable {
    private struct Slot {
        var object: OpenObject
        var opens: Int
        /// The logical time of the last close.
        var stamp: UInt64
    }

    private struct State {
        var slots: [UInt64: Slot] = [:]
        /// Closed files in the order of closing; may include files that were opened again.
        var closed: [(node: UInt64, stamp: UInt64)] = []
        var firstClosed = 0
        var closedCount = 0
        var stamp: UInt64 = 0
    }

    private let opener: any ObjectOpener
    let verifier: ObjectVerifier
    private let backings: Backings?
    private let capacity: Int
    private let state = Mutex(State())

    /// - Parameter capacity: The number of closed files that are kept open.
    init(_ opener: any ObjectOpener, _ verifier: ObjectVerifier, _ backings: Backings?, capacity: Int) {
        self.opener = opener
        self.verifier = verifier
        self.backings = backings
        self.capacity = capacity
    }

    /// Opens and verifies an inode's object if `reuse` found none. Each success needs a `close`.
    func open(
        _ node: UInt64, _ id: ObjectID, size: UInt64, request: Waiting, buffer: UnsafeMutableRawBufferPointer
    ) throws(ObjectFault) -> OpenObject {
        let file: FileDescriptor
        do throws(ObjectOpenError) {
            file = try opener.openObject(id)
        } catch {
            switch error {
            case .refused(let why): throw .refused(id, why)
            case .system(let system) where system.errno == .noEntry: throw .missing(id)
            case .system(let system):
                // Closed files that are kept open give way to this one.
                guard system.errno == .tooManyOpenFiles, forgetClosed(keeping: 0) else { throw .system(id, system) }
                return try open(node, id, size: size, request: request, buffer: buffer)
            }
        }
        let verification = try verifier.verify(file, id, size: size, request: request, buffer: buffer)
        let object = OpenObject(file, id, size: size, verification, backings)
        let used = state.withLock { state -> OpenObject in
            // Another thread may have opened it meanwhile. The kernel accepts only one backing file for an inode.
            if var slot = state.slots[node] {
                if slot.opens == 0 { state.closedCount -= 1 }
                slot.opens += 1
                state.slots[node] = slot
                return slot.object
            }
            state.slots[node] = Slot(object: object, opens: 1, stamp: 0)
            return object
        }
        // The file that other threads have open may have been changed, and this may be an intact replacement. Or it is the same file, whose
        // status changed, for example by a new link, and which was verified again.
        guard used === object || used.isUnchanged || used.currentIdentity == object.verification.identity else {
            close(node)
            throw .damaged(id, "it changed while it was open")
        }
        return used
    }

    /// Verifies an open object again if it may have changed. Returns its current identity, or nil if the kernel checks every read.
    func vouch(
        _ object: OpenObject, request: Waiting, buffer: UnsafeMutableRawBufferPointer
    ) throws(ObjectFault) -> FileIdentity? {
        guard let identity = object.verification.identity, object.currentIdentity != identity else { return object.verification.identity }
        return try verifier.verify(object.file, object.id, size: object.size, request: request, buffer: buffer).identity
    }

    /// The object of an open inode.
    func object(_ node: UInt64) -> OpenObject? { state.withLock { $0.slots[node]?.object } }

    func close(_ node: UInt64) {
        let isOver = state.withLock { state -> Bool in
            guard var slot = state.slots[node], slot.opens > 0 else { return false }
            slot.opens -= 1
            if slot.opens == 0 {
                state.stamp += 1
                slot.stamp = state.stamp
                state.closed.append((node, slot.stamp))
                state.closedCount += 1
            }
            state.slots[node] = slot
            return state.closedCount > capacity || state.closed.count - state.firstClosed > 2 * capacity
        }
        if isOver { _ = forgetClosed(keeping: capacity) }
    }

    /// Reuses an inode's object if it is open, or was recently, and is still the verified one. Each success needs a `close`.
    func reuse(_ node: UInt64) -> OpenObject? {
        let found = state.withLock { state -> OpenObject? in
            guard var slot = state.slots[node] else { return nil }
            if slot.opens == 0 { state.closedCount -= 1 }
            slot.opens += 1
            state.slots[node] = slot
            return slot.object
        }
        guard let found else { return nil }
        if found.isUnchanged { return found }
        // The object must be verified again. The slot stays while other threads have it open.
        let dropped = state.withLock { state -> OpenObject? in
            guard var slot = state.slots[node] else { return nil }
            slot.opens -= 1
            state.slots[node] = slot
            guard slot.opens == 0 else { return nil }
            return state.slots.removeValue(forKey: node)?.object
        }
        _ = dropped
        return nil
    }

    /// Closes the files that were closed longest ago. Returns false if there were none.
    private func forgetClosed(keeping limit: Int) -> Bool {
        var dropped: [OpenObject] = []
        state.withLock { state in
            while state.firstClosed < state.closed.count {
                let (node, stamp) = state.closed[state.firstClosed]
                let isCurrent = state.slots[node].map { $0.opens == 0 && $0.stamp == stamp } ?? false
                if isCurrent {
                    guard state.closedCount > limit else { break }
                    if let slot = state.slots.removeValue(forKey: node) { dropped.append(slot.object) }
                    state.closedCount -= 1
                }
                state.firstClosed += 1
            }
            if state.firstClosed > 1024, state.firstClosed * 2 > state.closed.count {
                state.closed.removeFirst(state.firstClosed)
                state.firstClosed = 0
            }
        }
        // The descriptors are closed here, outside the lock.
        return !dropped.isEmpty
    }
}
