import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem
import Synchronization

/// Blobs in files without names, on their way into an archive. There are as many files as blobs are written at once, each with one blob after
/// the other in it, so that descriptors do not run out whatever an image has.
final class BlobSpools: Sendable {
    /// Where a blob is.
    struct Place: Sendable {
        fileprivate var spool: Int
        fileprivate var offset: UInt64
        /// In bytes.
        var size: UInt64
    }

    private final class Spool: Sendable {
        let file: FileDescriptor
        init(_ file: consuming FileDescriptor) { self.file = file }
    }

    private struct State {
        var spools: [Spool] = []
        /// Spools that nothing is written to now, with their sizes.
        var idle: [(spool: Int, size: UInt64)] = []
    }

    private let directory: SharedDirectory
    private let state = Mutex(State())

    /// - Throws: where no file can be made in the directory.
    init(in directory: SharedDirectory) throws {
        self.directory = directory
        let first = Spool(try directory.descriptor.openUnnamed())
        state.withLock { state in
            state.spools.append(first)
            state.idle.append((spool: 0, size: 0))
        }
    }

    /// Writes one blob; nothing of it stays if it fails.
    func write(_ blob: OutgoingBlob) throws -> (sent: SentBlob, place: Place) {
        let (number, start) = try take()
        let file = state.withLock { $0.spools[number] }
        var check = BlobCheck(blob.expected)
        var position = start
        do {
            try blob.produce { bytes in
                check.update(bytes)
                try file.file.pwriteAll(bytes, at: position)
                position += UInt64(bytes.count)
            }
            let sent = try check.finish()
            giveBack(number, size: position)
            return (sent: sent, place: Place(spool: number, offset: start, size: sent.size))
        } catch {
            try? file.file.truncate(to: start)
            giveBack(number, size: start)
            throw error
        }
    }

    private func take() throws -> (spool: Int, size: UInt64) {
        if let idle = state.withLock({ $0.idle.popLast() }) { return idle }
        let new = Spool(try directory.descriptor.openUnnamed())
        return state.withLock { state in
            state.spools.append(new)
            return (spool: state.spools.count - 1, size: 0)
        }
    }

    private func giveBack(_ spool: Int, size: UInt64) { state.withLock { $0.idle.append((spool: spool, size: size)) } }

    /// Reads a blob from beginning to end in pieces.
    func read(_ place: Place, _ body: (UnsafeRawBufferPointer) throws -> Void) throws {
        let spool = state.withLock { $0.spools[place.spool] }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
        defer { buffer.deallocate() }
        var position: UInt64 = 0
        while position < place.size {
            let wanted = Int(min(UInt64(buffer.count), place.size - position))
            let piece = UnsafeMutableRawBufferPointer(rebasing: buffer[..<wanted])
            let count = try spool.file.pread(into: piece, at: place.offset + position)
            // Fewer bytes than were written show in the digest.
            guard count > 0 else { return }
            try body(UnsafeRawBufferPointer(rebasing: piece[..<count]))
            position += UInt64(count)
        }
    }
}
