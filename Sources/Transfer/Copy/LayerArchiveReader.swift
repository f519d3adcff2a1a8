import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsSplitStream
import ComposefsTransports

/// Reads a stored layer's archive, which is re-assembled during reading.
final class LayerArchiveReader: BlobReader {
    private let repository: Repository
    private var stream: SplitStreamReader<OpenFile>
    private var object: OpenFile?
    private var position: UInt64 = 0
    /// The current inline data, of which the caller has the first `taken` bytes.
    private var inline: [UInt8] = []
    private var taken = 0

    init(_ repository: Repository, _ stream: ObjectID) throws {
        self.repository = repository
        self.stream = try repository.openStream(stream)
    }

    func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        while true {
            if taken < inline.count {
                let count = min(buffer.count, inline.count - taken)
                inline.withUnsafeBytes { buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[taken..<(taken + count)])) }
                taken += count
                return count
            }
            if let object {
                let count = try object.read(at: position, into: buffer)
                position += UInt64(count)
                if count > 0 { return count }
                self.object = nil
            }
            switch try stream.next() {
            case .inline(let bytes)?: (inline, taken) = (Array(bytes), 0)
            case .external(let id)?:
                (object, position) = (try OpenFile(try repository.openObject(id, verify: repository.isSecure)), 0)
            case nil: return 0
            }
        }
    }
}
