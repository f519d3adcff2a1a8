/// The reason why a split stream could not be read or written.
public struct SplitStreamError: Error, Hashable, CustomStringConvertible {
    public enum Reason: Hashable, Sendable {
        /// The file could not be read; the text comes from the source.
        case unreadable(String)
        /// The file is shorter than its header requires.
        case truncated
        case notASplitStream
        case version(UInt8)
        /// The file is for another fs-verity algorithm (the kernel's number) than the repository's.
        case algorithm(UInt8)
        case blockSize(UInt8)
        case contentType(found: UInt64, expected: UInt64)
        /// The range of a section ends before it starts, lies outside the file or overlaps another section.
        case badRange(String)
        /// The length of a digest table is not a multiple of the digest size.
        case badTable(String)
        /// The names of references are invalid.
        case badNames(String)
        /// The names or the body cannot be decompressed.
        case unpack(String)
        /// The body refers to an object that is not in the object table.
        case objectIndex(Int64, count: Int)
        /// The body ends inside an instruction or an inline chunk.
        case bodyCut
        /// The size of the content differs from the size in the header.
        case size(declared: UInt64)
        /// The writer was given data that the format cannot express.
        case unwritable(String)
    }

    public var reason: Reason
    public init(_ reason: Reason) { self.reason = reason }

    public var description: String {
        switch reason {
        case .unreadable(let text): "split stream: \(text)"
        case .truncated: "split stream: the file is truncated"
        case .notASplitStream: "this is not a split stream"
        case .version(let version): "split stream: version \(version) is not supported"
        case .algorithm(let number): "split stream: it was made for fs-verity algorithm \(number), which is not the repository's"
        case .blockSize(let log): "split stream: a block size of 2^\(log) is not supported"
        case .contentType(let found, let expected):
            "split stream: expected \(Self.text(expected)), found \(Self.text(found))"
        case .badRange(let section): "split stream: the \(section) section lies outside the file or overlaps another section"
        case .badTable(let section): "split stream: the length of the \(section) section is not a multiple of the digest size"
        case .badNames(let what): "split stream: invalid named references: \(what)"
        case .unpack(let text): "split stream: \(text)"
        case .objectIndex(let index, let count): "split stream: the body refers to object \(index) of \(count)"
        case .bodyCut: "split stream: the body is truncated"
        case .size(let declared): "split stream: the header says that the content has \(declared) bytes, but it does not"
        case .unwritable(let what): "split stream: \(what)"
        }
    }

    /// The eight characters of a content type if they are printable, or else its number.
    private static func text(_ type: UInt64) -> String {
        let bytes = (0..<8).map { UInt8(truncatingIfNeeded: type >> (8 * UInt64($0))) }
        guard bytes.allSatisfy({ 0x21...0x7e ~= $0 }) else { return "content type \(type)" }
        return "content type \"" + String(decoding: bytes, as: UTF8.self) + "\""
    }
}
