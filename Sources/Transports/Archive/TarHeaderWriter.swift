import ComposefsBytes

/// Headers of a ustar archive (POSIX.1-1988), without times and owners. Names must be shorter than 100 bytes.
enum TarHeaderWriter {
    static let blockSize = 512

    static func directory(_ name: ByteString) -> [UInt8] { header(name, size: 0, isDirectory: true) }
    static func file(_ name: ByteString, size: UInt64) -> [UInt8] { header(name, size: size, isDirectory: false) }

    /// The zeros that fill the last block of a file.
    ///
    /// - Parameter size: of the file, in bytes.
    static func padding(_ size: UInt64) -> [UInt8] {
        [UInt8](repeating: 0, count: Int((UInt64(blockSize) - size % UInt64(blockSize)) % UInt64(blockSize)))
    }

    /// A size of 8 GiB or more is stored as a binary number (base-256), as GNU tar and star do.
    private static func header(_ name: ByteString, size: UInt64, isDirectory: Bool) -> [UInt8] {
        var header = [UInt8](repeating: 0, count: blockSize)
        func put(_ bytes: some Sequence<UInt8>, _ offset: Int) {
            for (index, byte) in bytes.enumerated() where offset + index < blockSize { header[offset + index] = byte }
        }
        func octal(_ value: UInt64, _ width: Int) -> String {
            let digits = String(value, radix: 8)
            return String(repeating: "0", count: max(0, width - digits.utf8.count)) + digits
        }
        put(name.bytes.prefix(100), 0)
        put(octal(isDirectory ? 0o755 : 0o644, 7).utf8, 100)
        put(octal(0, 7).utf8, 108)
        put(octal(0, 7).utf8, 116)
        if size < 1 << 33 {
            put(octal(size, 11).utf8, 124)
        } else {
            header[124] = 0x80
            put((0..<8).map { UInt8(truncatingIfNeeded: size >> (56 - 8 * UInt64($0))) }, 128)
        }
        put(octal(0, 11).utf8, 136)
        put([UInt8](repeating: 0x20, count: 8), 148)
        header[156] = UInt8(ascii: isDirectory ? "5" : "0")
        put("ustar".utf8, 257)
        put("00".utf8, 263)
        let sum = header.reduce(UInt64(0)) { $0 + UInt64($1) }
        put(Array(octal(sum, 6).utf8) + [0, 0x20], 148)
        return header
    }
}
