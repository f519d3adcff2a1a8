/// Why a split stream could not be read or written.
public struct SplitStreamError: Error, Hashable, CustomStringConvertible {
    public enum Reason: Hashable, Sendable {
        /// The file could not be read; the text is the reader's own.
        case unreadable(String)
        /// The file is shorter than what it should hold.
        case truncated
        case notASplitStream
        case version(UInt8)
        /// The file is for another digest algorithm (its number) than the repository.
        case algorithm(UInt8)
        case blockSize(UInt8)
        case contentType(found: UInt64, expected: UInt64)
        /// A section's range ends before it starts, is not in the file, or overlaps another section.
        case badRange(String)
        /// A digest table's length is no multiple of a digest's.
        case badTable(String)
        /// The names of references cannot be used.
        case badNames(String)
        /// The names or body cannot be unpacked.
        case unpack(String)
        /// The body refers to an object that is not in the table.
        case objectIndex(Int64, count: Int)
        /// The body ends inside an instruction or inline chunk.
        case bodyCut
        /// The content is longer or shorter than the header says.
        case size(declared: UInt64)
        /// The writer was given something that the format cannot hold.
        case unwritable(String)
    }

    public var reason: Reason
    public init(_ reason: Reason) { self.reason = reason }

    public var description: String {
        switch reason {
        case .unreadable(let text): "split stream: \(text)"
        case .truncated: "split stream: the file is cut short"
        case .notASplitStream: "this is not a split stream"
        case .version(let version): "split stream: version \(version) is not supported"
        case .algorithm(let number): "split stream: it is for fs-verity algorithm \(number), not the repository's"
        case .blockSize(let log): "split stream: a block size of 2^\(log) is not supported"
        case .contentType(let found, let expected):
            "split stream: it holds \(Self.text(found)) where \(Self.text(expected)) should be"
        case .badRange(let section): "split stream: the \(section) section is not in the file or overlaps another"
        case .badTable(let section): "split stream: the length of the \(section) section does not fit its digests"
        case .badNames(let what): "split stream: named references: \(what)"
        case .unpack(let text): "split stream: \(text)"
        case .objectIndex(let index, let count): "split stream: the body refers to object \(index) of \(count)"
        case .bodyCut: "split stream: the body ends too early"
        case .size(let declared): "split stream: the content is not \(declared) bytes long, as the header says"
        case .unwritable(let what): "split stream: \(what)"
        }
    }

    /// The eight characters of a content type where they are printable, or its number.
    private static func text(_ type: UInt64) -> String {
        let bytes = (0..<8).map { UInt8(truncatingIfNeeded: type >> (8 * UInt64($0))) }
        guard bytes.allSatisfy({ 0x21...0x7e ~= $0 }) else { return "content type \(type)" }
        return "content type \"" + String(decoding: bytes, as: UTF8.self) + "\""
    }
}
