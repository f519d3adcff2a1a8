public import ComposefsBytes

/// An EFI program: the sections of a PE file (Microsoft PE format, sections 3 and 4).
///
/// Only the headers are read. The contents of a section are read when they are asked for.
public struct PortableExecutable: Sendable {
    public struct Section: Sendable, Equatable {
        /// At most eight bytes.
        public var name: ByteString
        /// The size in memory in bytes.
        public var memorySize: UInt32
        /// The place in memory, from the program's first byte on.
        public var address: UInt32 = 0
        /// The contents' place in the file in bytes. Behind them, a loader fills the memory with zeros.
        public var offset: UInt32
        public var storedSize: UInt32

        /// The number of bytes of the file that are the section's. A stored size is rounded up to the file's alignment, and what follows the
        /// contents there is padding.
        public var size: Int { Int(min(memorySize == 0 ? storedSize : memorySize, storedSize)) }
    }

    /// `IMAGE_FILE_MACHINE_*`: 0x8664 is x86-64, 0xaa64 is ARM64.
    public let machine: UInt16
    public let sections: [Section]
    /// The place and the size of the optional header in the file, in bytes.
    private let optionalHeader: (offset: Int, size: Int)

    /// The largest number of sections that is accepted. Windows' loader has the same limit, and unified kernel images have about a dozen.
    public static let sectionLimit = 96

    private enum Layout {
        /// `e_lfanew` of the DOS header: the offset of the PE signature.
        static let signatureOffset = 0x3c
        static let dosHeaderSize = 0x40
        /// The signature and the COFF header.
        static let headerSize = 24
        static let machine = 4
        static let sectionCount = 6
        static let optionalHeaderSize = 20
        static let sectionSize = 40
        static let sectionNameSize = 8
        static let sectionMemorySize = 8
        static let sectionAddress = 12
        static let sectionStoredSize = 16
        static let sectionOffset = 20
    }

    /// Reads the headers of `file`.
    ///
    /// - Throws: `ExecutableError`, or the error of `file`.
    public init(_ file: some RandomAccessBytes) throws {
        func read(_ offset: Int, _ count: Int) throws -> [UInt8] {
            let bytes = try readPart(of: file, at: UInt64(offset), count)
            guard bytes.count == count else {
                throw ExecutableError.truncated(offset: UInt64(offset), needed: count, size: file.byteCount)
            }
            return bytes
        }
        let dos = try readPart(of: file, at: 0, Layout.dosHeaderSize)
        guard dos.count == Layout.dosHeaderSize, dos.starts(with: "MZ".utf8) else { throw ExecutableError.notExecutable(offset: 0) }
        let start = Int(dos.load(UInt32.self, at: Layout.signatureOffset))
        let header = try read(start, Layout.headerSize)
        guard header.starts(with: [0x50, 0x45, 0, 0]) else { throw ExecutableError.notExecutable(offset: UInt64(start)) }
        machine = header.load(UInt16.self, at: Layout.machine)
        let count = Int(header.load(UInt16.self, at: Layout.sectionCount))
        guard count <= Self.sectionLimit else { throw ExecutableError.tooManySections(count, limit: Self.sectionLimit) }
        optionalHeader = (start + Layout.headerSize, Int(header.load(UInt16.self, at: Layout.optionalHeaderSize)))
        let table = optionalHeader.offset + optionalHeader.size
        let bytes = try read(table, count * Layout.sectionSize)
        sections = (0..<count).map { index in
            let at = index * Layout.sectionSize
            let name = bytes[at..<(at + Layout.sectionNameSize)]
            return Section(
                name: ByteString(name.prefix { $0 != 0 }),
                memorySize: bytes.load(UInt32.self, at: at + Layout.sectionMemorySize),
                address: bytes.load(UInt32.self, at: at + Layout.sectionAddress),
                offset: bytes.load(UInt32.self, at: at + Layout.sectionOffset),
                storedSize: bytes.load(UInt32.self, at: at + Layout.sectionStoredSize))
        }
    }

    /// Where a program is in memory (section 3.4).
    public struct MemoryLayout: Sendable, Equatable {
        /// The address of the program's first byte that it was linked for.
        public var base: UInt64
        /// The addresses of sections are multiples of this power of two, in bytes.
        public var alignment: UInt32
        /// The first free address behind all sections, from the program's first byte on.
        public var end: UInt64

        public init(base: UInt64, alignment: UInt32, end: UInt64) {
            self.base = base
            self.alignment = alignment
            self.end = end
        }
    }

    /// Reads the memory layout from the optional header of `file`.
    ///
    /// - Throws: `ExecutableError`, or the error of `file`.
    public func memoryLayout(in file: some RandomAccessBytes) throws -> MemoryLayout {
        // Up to and including the alignment of sections.
        let needed = 36
        let header = try readPart(of: file, at: UInt64(optionalHeader.offset), min(needed, optionalHeader.size))
        guard header.count == needed else {
            throw ExecutableError.truncated(offset: UInt64(optionalHeader.offset), needed: needed, size: file.byteCount)
        }
        let base: UInt64
        switch header.load(UInt16.self, at: 0) {
        case 0x20b: base = header.load(UInt64.self, at: 24)
        case 0x10b: base = UInt64(header.load(UInt32.self, at: 28))
        case let magic: throw ExecutableError.unknownHeader(magic)
        }
        let alignment = header.load(UInt32.self, at: 32)
        guard alignment > 0, alignment & (alignment - 1) == 0, alignment <= 1 << 20 else {
            throw ExecutableError.sectionAlignment(alignment)
        }
        let end = sections.map { UInt64($0.address) + UInt64(max($0.memorySize, $0.storedSize)) }.max() ?? 0
        return MemoryLayout(base: base, alignment: alignment, end: end)
    }

    /// The contents of a section of `file`.
    ///
    /// - Parameter limit: the largest size in bytes that is read.
    /// - Throws: `ExecutableError`, or the error of `file`.
    public func contents(of section: Section, in file: some RandomAccessBytes, limit: Int) throws -> [UInt8] {
        guard section.size <= limit else { throw ExecutableError.sectionTooLarge(section.name, size: section.size, limit: limit) }
        let bytes = try readPart(of: file, at: UInt64(section.offset), section.size)
        guard bytes.count == section.size else {
            throw ExecutableError.truncated(offset: UInt64(section.offset), needed: section.size, size: file.byteCount)
        }
        return bytes
    }

    /// As many of the first `limit` bytes of a section as `file` has, for a reader that looks at damaged programs too.
    ///
    /// - Throws: the error of `file`.
    public func start(of section: Section, in file: some RandomAccessBytes, limit: Int) throws -> [UInt8] {
        try readPart(of: file, at: UInt64(section.offset), min(section.size, limit))
    }
}

/// The reason why an EFI program was refused.
public enum ExecutableError: Error, Equatable, CustomStringConvertible {
    /// There is no DOS header, or no PE signature at the offset in it.
    case notExecutable(offset: UInt64)
    /// The file ends within a header or a section.
    case truncated(offset: UInt64, needed: Int, size: UInt64)
    case tooManySections(Int, limit: Int)
    case noSection(ByteString)
    case sectionTooLarge(ByteString, size: Int, limit: Int)
    case notUTF8(ByteString)
    /// The optional header is neither that of a 32-bit nor of a 64-bit program.
    case unknownHeader(UInt16)
    /// The alignment of sections in memory is no power of two, or too large.
    case sectionAlignment(UInt32)

    public var description: String {
        switch self {
        case .notExecutable(let offset): "not an EFI program: no signature at offset \(offset)"
        case .truncated(let offset, let needed, let size):
            "not a whole EFI program: \(needed) bytes at offset \(offset) are missing or cut off: the file has \(size)"
        case .tooManySections(let count, let limit): "the EFI program has \(count) sections; at most \(limit) are accepted"
        case .noSection(let name): "the EFI program has no section \(name)"
        case .sectionTooLarge(let name, let size, let limit): "section \(name) has \(size) bytes; at most \(limit) are read"
        case .notUTF8(let name): "section \(name) is not UTF-8"
        case .unknownHeader(let magic): "the EFI program has an optional header of the unknown kind \(magic)"
        case .sectionAlignment(let alignment): "the EFI program aligns sections to \(alignment) bytes"
        }
    }
}

/// As many of `count` bytes as the file has at `offset`. Nothing is allocated for bytes that the file does not have.
private func readPart(of file: some RandomAccessBytes, at offset: UInt64, _ count: Int) throws -> [UInt8] {
    let available = offset < file.byteCount ? file.byteCount - offset : 0
    var bytes = [UInt8](repeating: 0, count: Int(min(UInt64(count), available)))
    let filled = try bytes.withUnsafeMutableBytes { try file.read(at: offset, into: $0) }
    bytes.removeSubrange(filled...)
    return bytes
}
