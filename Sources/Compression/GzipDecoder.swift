internal import ComposefsCISAL

/// Decodes gzip members (RFC 1952) with ISA-L's inflate.
///
/// The header is parsed here, so that names and comments of any length need no memory and every reserved flag is refused. ISA-L reads
/// the deflate data and the trailer (CRC-32 and length). It must read the trailer itself: only then do all bytes that it takes from one
/// input buffer and holds until the next call belong to the member.
final class GzipDecoder {
    private enum Stage {
        case fixed, extraLength, extra, name, comment, headerChecksum, body
    }

    private enum Flag {
        static let headerChecksum: UInt8 = 2
        static let extra: UInt8 = 4
        static let name: UInt8 = 8
        static let comment: UInt8 = 16
        static let reserved: UInt8 = 0xe0
    }

    /// ISA-L's `inflate_state`.
    private let state: UnsafeMutableRawPointer
    private var stage = Stage.fixed
    /// The number of bytes of the header's current field that were read.
    private var position = 0
    private var flags: UInt8 = 0
    /// The value of a two-byte field: the length of the extra field, then the header's checksum.
    private var word = 0
    private var headerCRC: UInt32 = 0
    private var members: UInt64 = 0

    init() {
        state = .allocate(byteCount: cisal_inflate_size(), alignment: 64)
        cisal_inflate_init(state)
    }

    deinit { state.deallocate() }

    var end: EndState {
        guard stage == .fixed, position == 0 else { return .inside }
        return members == 0 ? .nothing : .complete
    }

    func decode(
        _ input: inout UnsafeRawBufferPointer, _ output: UnsafeMutableRawPointer, _ room: Int, _ filled: inout Int
    ) throws(DecodeFault) {
        while filled < room {
            if stage != .body {
                guard !input.isEmpty else { return }
                try readHeader(&input)
                guard stage == .body else { return }
                cisal_inflate_reset(state)
            }
            let made = try inflate(&input, output + filled, room - filled)
            filled += made
            if cisal_inflate_has_ended(state) != 0 {
                members &+= 1
                stage = .fixed
                position = 0
                headerCRC = 0
            } else if made == 0, input.isEmpty {
                return
            }
        }
    }

    private func inflate(
        _ input: inout UnsafeRawBufferPointer, _ output: UnsafeMutableRawPointer, _ room: Int
    ) throws(DecodeFault) -> Int {
        // ISA-L counts in 32 bits.
        let offered = min(input.count, 1 << 30)
        let wanted = min(room, 1 << 30)
        var (inputLeft, outputLeft) = (UInt32(truncatingIfNeeded: offered), UInt32(truncatingIfNeeded: wanted))
        let status = cisal_inflate(state, input.baseAddress, &inputLeft, output, &outputLeft)
        let taken = offered - Int(inputLeft)
        guard taken >= 0, taken <= offered else { throw DecodeFault(.corrupt("inconsistent input position")) }
        input = UnsafeRawBufferPointer(rebasing: input[taken...])
        if status < 0 { throw DecodeFault(Self.reason(status)) }
        let made = wanted - Int(outputLeft)
        // No byte consumed, no byte produced, no end reached: another call would loop forever.
        if made == 0, taken == 0, offered > 0, cisal_inflate_has_ended(state) == 0 {
            throw DecodeFault(.corrupt("no progress"))
        }
        return made
    }

    private static func reason(_ status: Int32) -> CompressionError.Reason {
        switch status {
        case ISAL_INVALID_BLOCK: .corrupt("invalid deflate block")
        case ISAL_INVALID_SYMBOL: .corrupt("invalid deflate symbol")
        case ISAL_INVALID_LOOKBACK: .corrupt("deflate distance before the start")
        case ISAL_INCORRECT_CHECKSUM: .checksum
        default: .corrupt("inflate error \(status)")
        }
    }

    /// Consumes header bytes until the header is complete or the input is used up.
    private func readHeader(_ input: inout UnsafeRawBufferPointer) throws(DecodeFault) {
        var at = 0
        defer { input = UnsafeRawBufferPointer(rebasing: input[at...]) }
        // The start of the bytes that the header's checksum does not cover yet. The checksum field itself is not covered.
        var summed = 0
        while at < input.count, stage != .body {
            let byte = input[at]
            if stage == .headerChecksum, position == 0 {
                sum(input, summed..<at)
                summed = at
            }
            try accept(byte)
            at += 1
        }
        if stage != .body, stage != .headerChecksum || position == 0 { sum(input, summed..<at) }
    }

    private func sum(_ input: UnsafeRawBufferPointer, _ range: Range<Int>) {
        guard !range.isEmpty, let base = input.baseAddress else { return }
        headerCRC = crc32_gzip_refl(headerCRC, (base + range.lowerBound).assumingMemoryBound(to: UInt8.self), UInt64(range.count))
    }

    private func accept(_ byte: UInt8) throws(DecodeFault) {
        switch stage {
        case .fixed:
            switch position {
            case 0 where byte != 0x1f, 1 where byte != 0x8b:
                throw DecodeFault(members == 0 ? .notTheFormat : .trailingGarbage)
            case 2 where byte != 8: throw DecodeFault(.badHeader("compression method \(byte) is not deflate"))
            case 3:
                guard byte & Flag.reserved == 0 else { throw DecodeFault(.badHeader("reserved flags are set")) }
                flags = byte
            default: break
            }
            position += 1
            if position == 10 { advance(to: .extraLength) }
        case .extraLength:
            word |= Int(byte) << (8 * position)
            position += 1
            if position == 2 { advance(to: word > 0 ? .extra : .name) }
        case .extra:
            position += 1
            if position == word { advance(to: .name) }
        case .name:
            if byte == 0 { advance(to: .comment) }
        case .comment:
            if byte == 0 { advance(to: .headerChecksum) }
        case .headerChecksum:
            word |= Int(byte) << (8 * position)
            position += 1
            if position == 2 {
                guard word == Int(headerCRC & 0xffff) else { throw DecodeFault(.badHeader("its checksum does not match")) }
                advance(to: .body)
            }
        case .body: break
        }
    }

    /// Advances to the first field, from `next` on, that the flags announce.
    private func advance(to next: Stage) {
        stage =
            switch next {
            case .extraLength where flags & Flag.extra != 0: .extraLength
            case .extra: .extra
            case .extraLength where flags & Flag.name != 0, .name where flags & Flag.name != 0: .name
            case .extraLength where flags & Flag.comment != 0, .name where flags & Flag.comment != 0,
                .comment where flags & Flag.comment != 0:
                .comment
            case .body: .body
            default: flags & Flag.headerChecksum != 0 ? .headerChecksum : .body
            }
        position = 0
        // The length of the extra field is needed while its bytes are counted.
        if stage != .extra { word = 0 }
    }
}
