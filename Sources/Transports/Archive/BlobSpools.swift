import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem
import Synchronization

/// Blobs in unnamed files, before they are written into an archive.
///
/// There are as many files as blobs are written at once. Each file holds several blobs, one after the other, so the number of open
/// descriptors does not depend on the number of blobs.
final class BlobSpools: Sendable {
    /// The file and the offset of a blob.
    struct Location: Sendable {
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
        /// Spools that no thread is writing to, with their sizes in bytes.
        var idle: [(spool: Int, size: UInt64)] = []
    }

    private let directory: SharedDirectory
    private let state = Mutex(State())

    /// - Throws: `SystemError` if no file can be created in the directory.
    init(in directory: SharedDirectory) throws {
        self.directory = directory
        let first = Spool(try directory.descriptor.openUnnamed())
        state.withLock { state in
            state.spools.append(first)
            state.idle.append((spool: 0, size: 0))
        }
    }

    /// Writes one blob and verifies it. If that fails, the bytes written so far are removed.
    ///
    /// - Throws: `PushError.blobDigest` if the blob is not the expected one, `SystemError`, and what the blob's producer throws.
    func write(_ blob: OutgoingBlob) throws -> (sent: SentBlob, location: Location) {
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
            return (sent: sent, location: Location(spool: number, offset: start, size: sent.size))
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

    /// Reads a blob from beginning to end and calls `body` with consecutive parts of it. A blob that became shorter ends early.
    func read(_ location: Location, _ body: (UnsafeRawBufferPointer) throws -> Void) throws {
        let spool = state.withLock { $0.spools[location.spool] }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
        defer { buffer.deallocate() }
        // The digest detects missing bytes.
        var parts = FileParts(into: buffer, from: location.offset, to: location.offset + location.size)
        while let part = try parts.next(of: spool.file) { try body(part) }
    }
}
