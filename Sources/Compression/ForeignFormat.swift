/// Formats that cannot be decompressed here. They are recognised so that messages can name them.
public enum ForeignFormat: String, Sendable, Hashable, CaseIterable {
    case xz, lzma, bzip2, lzip, lz4, lzop, compress, zip
    case sevenZip = "7z"
    case rar

    /// The format that the first bytes of a file indicate, or nil if it is none of these.
    ///
    /// A tar archive may begin with any name, so the answer counts only when the bytes cannot be read in the expected format.
    public static func detect(_ prefix: UnsafeRawBufferPointer) -> ForeignFormat? {
        // In a bzip2 stream, a digit with the block size stands between `BZh` and the magic number of the first block, or of the end of
        // the stream when it is empty.
        if prefix.count >= 10, prefix.starts(with: [0x42, 0x5a, 0x68]), (0x31...0x39).contains(prefix[3]) {
            let magic = prefix[4..<10]
            let isStream =
                magic.elementsEqual([0x31, 0x41, 0x59, 0x26, 0x53, 0x59]) || magic.elementsEqual([0x17, 0x72, 0x45, 0x38, 0x50, 0x90])
            if isStream { return .bzip2 }
        }
        // 3 literal context bits, and a dictionary size that is a power of two from 64 KiB: the only properties that writers use.
        if prefix.count >= 5, prefix[0] == 0x5d, prefix[1] == 0, prefix[2] == 0, prefix[3] != 0 || prefix[4] != 0 { return .lzma }
        return allCases.first { format in format.magics.contains { !$0.isEmpty && prefix.starts(with: $0) } }
    }

    /// The byte sequences that a file may begin with; empty for formats that need more than a comparison.
    private var magics: [[UInt8]] {
        switch self {
        case .xz: [[0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]]
        case .lzip: [[0x4c, 0x5a, 0x49, 0x50, 0x01]]
        case .lz4: [[0x04, 0x22, 0x4d, 0x18], [0x02, 0x21, 0x4c, 0x18]]
        case .lzop: [[0x89, 0x4c, 0x5a, 0x4f, 0x00, 0x0d, 0x0a, 0x1a, 0x0a]]
        case .compress: [[0x1f, 0x9d]]
        case .zip: [[0x50, 0x4b, 0x03, 0x04]]
        case .sevenZip: [[0x37, 0x7a, 0xbc, 0xaf, 0x27, 0x1c]]
        case .rar: [[0x52, 0x61, 0x72, 0x21, 0x1a, 0x07]]
        case .bzip2, .lzma: []
        }
    }

    /// A command that decompresses a file of this format.
    public var command: String {
        switch self {
        case .xz, .lzma: "xz -d"
        case .bzip2: "bzip2 -d"
        case .lzip: "lzip -d"
        case .lz4: "lz4 -d"
        case .lzop: "lzop -d"
        case .compress: "gzip -d"
        case .zip: "unzip"
        case .sevenZip: "7z x"
        case .rar: "unrar x"
        }
    }
}
