internal import ComposefsEROFS
internal import ComposefsHashing
internal import ComposefsLinuxSystem
internal import Synchronization

/// An object that is open and was verified.
final class OpenObject: Sendable {
    let file: FileDescriptor
    let id: ObjectID
    let size: UInt64
    let verification: Verification
    /// By which the kernel knows it, where it reads from it by itself.
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

    /// Whether its content is surely what was verified.
    var isUnchanged: Bool {
        switch verification {
        case .byKernel: true
        case .byHash(let identity, let isSettled): isSettled && currentIdentity == identity
        }
    }

    /// Nil where the file does not tell.
    var currentIdentity: FileIdentity? { (try? file.status()).map { FileIdentity($0) } }
}

/// Files that the kernel reads from by itself (FUSE_PASSTHROUGH), where it does that.
final class Backings: Sendable {
    private let device: FuseDevice
    private let isPossible = Atomic<Bool>(true)

    /// - Parameter device: with the connection.
    init(_ device: consuming FuseDevice) { self.device = device }

    func open(_ file: borrowing FileDescriptor) -> Int32? {
        guard isPossible.load(ordering: .relaxed) else { return nil }
        do throws(Errno) {
            return try device.openBacking(file)
        } catch {
            // No right, no such file system, a stack too deep: the same for every object. Otherwise only this one.
            if error != .tooManyOpenFiles, error != .outOfMemory { isPossible.store(false, ordering: .relaxed) }
            return nil
        }
    }

    func close(_ number: Int32) { device.closeBacking(number) }
}

/// The objects of files that are open, and of those that were not long ago, by inode.
final class ObjectFiles: Sendable {
    private struct Slot {
        var object: OpenObject
        var opens: Int
        /// When it was last closed.
        var stamp: UInt64
    }

    private struct State {
        var slots: [UInt64: Slot] = [:]
        /// Closed ones in that order, with those that were opened again.
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

    /// - Parameter capacity: how many closed files are kept open.
    init(_ opener: any ObjectOpener, _ verifier: ObjectVerifier, _ backings: Backings?, capacity: Int) {
        self.opener = opener
        self.verifier = verifier
        self.backings = backings
        self.capacity = capacity
    }

    /// Opens and verifies an inode's object, which `reuse` did not have; each success needs a `close`.
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
                // What is kept open gives way to what is needed.
                guard system.errno == .tooManyOpenFiles, forgetClosed(keeping: 0) else { throw .system(id, system) }
                return try open(node, id, size: size, request: request, buffer: buffer)
            }
        }
        let verification = try verifier.verify(file, id, size: size, request: request, buffer: buffer)
        let object = OpenObject(file, id, size: size, verification, backings)
        let used = state.withLock { state -> OpenObject in
            // Another may have opened it meanwhile. The kernel takes only one backing file for an inode.
            if var slot = state.slots[node] {
                if slot.opens == 0 { state.closedCount -= 1 }
                slot.opens += 1
                state.slots[node] = slot
                return slot.object
            }
            state.slots[node] = Slot(object: object, opens: 1, stamp: 0)
            return object
        }
        // The one that others have open may have been changed, and this is a good copy in its place. Or it is the same file, which got
        // another link, say, and was found good again.
        guard used === object || used.isUnchanged || used.currentIdentity == object.verification.identity else {
            close(node)
            throw .damaged(id, "it changed while it is open")
        }
        return used
    }

    /// Verifies an open object again unless it is what it was; returns what it is now, nil where the kernel vouches for it.
    func vouch(
        _ object: OpenObject, request: Waiting, buffer: UnsafeMutableRawBufferPointer
    ) throws(ObjectFault) -> FileIdentity? {
        guard let identity = object.verification.identity, object.currentIdentity != identity else { return object.verification.identity }
        return try verifier.verify(object.file, object.id, size: object.size, request: request, buffer: buffer).identity
    }

    /// The object of an inode that is open.
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

    /// Opens an inode's object where it is open already, or was not long ago, and is still what was verified; each success needs a `close`.
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
        // Verified again from the start; while others have it open the slot stays.
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

    /// Closes for good what was closed longest ago; false where there was nothing.
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
        // They end here, outside the lock.
        return !dropped.isEmpty
    }
}
