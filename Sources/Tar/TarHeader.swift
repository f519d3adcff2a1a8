internal import ComposefsBytes

/// A 512-byte header block (POSIX.1-1988 ustar; the GNU and V7 formats share the first 257 bytes).
struct TarHeader {
    static let size = 512

    enum Format { case v7, ustar, gnu }

    let block: UnsafeRawPointer

    // MARK: Checksum

    /// The sum of all bytes, with the checksum field counted as spaces, and whether all bytes are zero.
    private func sums() -> (sum: UInt32, isZero: Bool) {
        // The sums are kept in 16-bit lanes: 64 words that add at most 2 × 255 to a lane stay below 2^16.
        let mask: UInt64 = 0x00ff_00ff_00ff_00ff
        var lanes: UInt64 = 0
        var all: UInt64 = 0
        for offset in stride(from: 0, to: Self.size, by: 8) {
            let word = block.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
            all |= word
            lanes &+= (word & mask) &+ (word >> 8 & mask)
        }
        var sum: UInt32 = 0
        for shift in stride(from: 0, to: 64, by: 16) { sum &+= UInt32(truncatingIfNeeded: lanes >> UInt64(shift) & 0xffff) }
        for offset in 148..<156 { sum = sum &- UInt32(byte(offset)) &+ 32 }
        return (sum, all == 0)
    }

    enum Validity { case zero, valid }

    func validity() throws(TarFault) -> Validity {
        let (sum, isZero) = sums()
        if isZero { return .zero }
        guard case .value(let stored) = number(148, 8) else { throw TarFault(.checksum) }
        if stored == UInt64(sum) { return .valid }
        // Old writers summed signed bytes.
        var high: Int64 = 0
        for offset in 0..<Self.size where !(148..<156).contains(offset) && byte(offset) >= 0x80 { high += 1 }
        guard Int64(exactly: stored) == Int64(sum) - 256 * high else { throw TarFault(.checksum) }
        return .valid
    }

    // MARK: Fields

    @inline(__always)
    func byte(_ offset: Int) -> UInt8 { block.load(fromByteOffset: offset, as: UInt8.self) }

    var typeFlag: UInt8 { byte(156) }

    var format: Format {
        // "ustar" is followed by NUL "00" (POSIX), or by two spaces and NUL (GNU).
        let magic = block.loadUnaligned(fromByteOffset: 257, as: UInt64.self).bigEndian
        switch magic {
        case 0x7573_7461_7200_3030: return .ustar
        case 0x7573_7461_7220_2000: return .gnu
        default: return .v7
        }
    }

    /// A text field: the bytes before its first NUL, or the whole field.
    private func text(_ offset: Int, _ width: Int) -> UnsafeRawBufferPointer {
        var count = 0
        while count < width, byte(offset + count) != 0 { count += 1 }
        return UnsafeRawBufferPointer(start: block + offset, count: count)
    }

    var linkName: ByteString { ByteString(text(157, 100)) }

    func path(_ format: Format) -> ByteString {
        let name = text(0, 100)
        guard format == .ustar, byte(345) != 0 else { return ByteString(name) }
        let prefix = text(345, 155)
        var bytes: [UInt8] = []
        bytes.reserveCapacity(prefix.count + 1 + name.count)
        bytes.append(contentsOf: prefix)
        bytes.append(0x2f)
        bytes.append(contentsOf: name)
        return ByteString(bytes)
    }

    // MARK: Numbers

    enum Number {
        case value(UInt64)
        case negative(Int64)
        case notANumber, tooLarge
    }

    /// Parses octal digits among spaces and NULs (an empty field is 0) or, if the first bit is set, a two's complement number in the
    /// remaining bits.
    func number(_ offset: Int, _ width: Int) -> Number {
        if byte(offset) & 0x80 != 0 { return binary(offset, width) }
        var at = offset
        let end = offset + width
        while at < end, byte(at) == 0x20 || byte(at) == 0 { at += 1 }
        var value: UInt64 = 0
        // At most twelve digits, 36 bits.
        while at < end {
            let digit = byte(at) &- 0x30
            guard digit < 8 else { break }
            value = value << 3 | UInt64(digit)
            at += 1
        }
        // A NUL ends the field. After a space, only spaces may follow.
        while at < end, byte(at) == 0x20 { at += 1 }
        return at == end || byte(at) == 0 ? .value(value) : .notANumber
    }

    private func binary(_ offset: Int, _ width: Int) -> Number {
        let isNegative = byte(offset) & 0x40 != 0
        let inverse: UInt8 = isNegative ? 0xff : 0
        var value = UInt64((byte(offset) ^ inverse) & 0x7f)
        for at in (offset + 1)..<(offset + width) {
            guard value >> 56 == 0 else { return .tooLarge }
            value = value << 8 | UInt64(byte(at) ^ inverse)
        }
        guard isNegative else { return .value(value) }
        guard let magnitude = Int64(exactly: value) else { return .tooLarge }
        return .negative(~magnitude)
    }

    func unsigned(_ offset: Int, _ width: Int, max: UInt64, _ field: String) throws(TarFault) -> UInt64 {
        switch number(offset, width) {
        case .value(let value) where value <= max: return value
        case .value, .tooLarge: throw TarFault(.badNumber(field: field, .tooLarge))
        case .negative: throw TarFault(.badNumber(field: field, .negative))
        case .notANumber: throw TarFault(.badNumber(field: field, .notANumber))
        }
    }

    func mode() throws(TarFault) -> UInt32 {
        UInt32(truncatingIfNeeded: try unsigned(100, 8, max: UInt64(UInt32.max), "the mode") & 0o7777)
    }

    func uid() throws(TarFault) -> UInt32 { try owner(108, "the user id") }

    func gid() throws(TarFault) -> UInt32 { try owner(116, "the group id") }

    /// The reason for refusing 4294967295: chown(2) takes it for "do not change", so no file can have this owner.
    static let noOwner = "4294967295 is not a valid owner: chown takes it for \"do not change\""

    private func owner(_ offset: Int, _ field: String) throws(TarFault) -> UInt32 {
        let number = try unsigned(offset, 8, max: UInt64(UInt32.max), field)
        guard number < UInt64(UInt32.max) else { throw TarFault(.badNumber(field: field, .noOwner)) }
        return UInt32(truncatingIfNeeded: number)
    }

    /// At most 2^63 - 1.
    func size() throws(TarFault) -> UInt64 { try unsigned(124, 12, max: UInt64(Int64.max), "the size") }

    // MARK: Old GNU sparse files

    /// The size of the whole file, from a header of type `S`.
    func sparseSize() throws(TarFault) -> UInt64 { try unsigned(483, 12, max: UInt64(Int64.max), "the sparse file's size") }

    /// Segments of a map: four in the header from offset 386, twenty-one in each continuation block from offset 0. An empty segment at
    /// offset 0 is unused space.
    func sparseSegments(at offset: Int, count: Int) throws(TarFault) -> [TarSparse.Segment] {
        var segments: [TarSparse.Segment] = []
        for index in 0..<count {
            let at = offset + 24 * index
            if byte(at) == 0 { break }
            let start = try unsigned(at, 12, max: UInt64(Int64.max), "an offset in the sparse file's map")
            let size = try unsigned(at + 12, 12, max: UInt64(Int64.max), "a size in the sparse file's map")
            segments.append(TarSparse.Segment(offset: start, size: size))
        }
        return segments
    }

    /// Whether another block of the map follows. The flag is at offset 482 of a header and at 504 of a continuation block.
    func isSparseContinued(_ offset: Int) -> Bool { byte(offset) != 0 }

    func seconds() throws(TarFault) -> Int64 {
        if case .negative(let value) = number(136, 12) { return value }
        return Int64(truncatingIfNeeded: try unsigned(136, 12, max: UInt64(Int64.max), "the modification time"))
    }

    /// The device numbers that Linux supports: 12 bits of major and 20 bits of minor number.
    func device() throws(TarFault) -> (major: UInt32, minor: UInt32) {
        let major = try unsigned(329, 8, max: 0xfff, "the major device number")
        let minor = try unsigned(337, 8, max: 0xf_ffff, "the minor device number")
        return (UInt32(truncatingIfNeeded: major), UInt32(truncatingIfNeeded: minor))
    }
}
