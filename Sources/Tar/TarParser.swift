internal import ComposefsBytes

/// Splits an archive, which is passed in parts of any size, into entries, the content of large files, and all other bytes.
///
/// The parser reads V7, POSIX ustar and pax, and GNU archives. It passes content on without copying it; the content of sparse files is
/// passed on as stored in the archive. Memory use does not depend on any size that the archive claims.
///
/// Because real images need it, the parser is less strict than POSIX: it accepts a missing or truncated end marker, truncated padding after
/// the last entry, signed checksums, base-256 numbers, negative times, and any data after the end marker. Global PAX headers are kept in
/// the stream and otherwise ignored, as in other container tools.
///
/// After an error the parser must not be used again.
public struct TarParser: ~Copyable {
    private enum State {
        /// Before or inside a header block.
        case header
        /// Inside the data of a GNU long name, long link or PAX header.
        case extensionData(ExtensionKind)
        /// Inside a small file.
        case smallContent
        /// Inside a large file.
        case external
        /// Inside skipped data: of global headers and of entries of unknown type.
        case skipped
        /// Inside the zeros that fill the last block.
        case padding
        /// Before or inside a continuation block of an old GNU sparse map.
        case sparseMap
        /// After one zero block.
        case zeroBlock
        /// After the end marker.
        case ended
    }

    private enum ExtensionKind {
        case longName, longLink, pax
        var name: String {
            switch self {
            case .longName: "GNU long name"
            case .longLink: "GNU long link"
            case .pax: "PAX"
            }
        }
    }

    /// The approximate number of inline bytes between two calls of `TarHandler.boundary`.
    private static let boundaryInterval = 1 << 20

    private let limits: TarLimits
    private var state = State.header
    /// The number of bytes of the current data that are still to come.
    private var remaining: UInt64 = 0
    /// The number of padding bytes after the current data.
    private var padding: UInt64 = 0
    /// The number of bytes of the archive that were consumed.
    public private(set) var position: UInt64 = 0
    private var sinceBoundary = 0

    /// A header block that arrives in parts.
    private let block: UnsafeMutableRawPointer
    private var blockCount = 0

    /// The extension headers before the current entry.
    private var longName: ByteString?
    private var longLink: ByteString?
    private var pax: PaxRecords?
    private var extensionBytes: UInt64 = 0
    private var hasExtension = false
    private var collected: [UInt8] = []

    /// The entry whose content is being read, and its content.
    private var current: TarEntry?
    private var externalSize: UInt64 = 0

    public init(limits: TarLimits = .default) {
        self.limits = limits
        block = .allocate(byteCount: TarHeader.size, alignment: 16)
    }

    deinit { block.deallocate() }

    /// Consumes the next bytes of the archive.
    ///
    /// - Throws: `TarError`, or an error of the handler.
    public mutating func feed<Handler: TarHandler & ~Copyable>(_ bytes: UnsafeRawBufferPointer, to handler: inout Handler) throws {
        guard let base = bytes.baseAddress else { return }
        let end = bytes.count
        var at = 0
        // The start of the bytes before `at` that were not passed on yet.
        var pending = 0
        while at < end {
            switch state {
            case .header, .zeroBlock, .sparseMap:
                if blockCount == 0, sinceBoundary + at - pending >= Self.boundaryInterval, !hasExtension, case .header = state {
                    try handOver(base, &pending, at, to: &handler)
                    sinceBoundary = 0
                    try handler.boundary()
                }
                let header: TarHeader
                if blockCount == 0, end - at >= TarHeader.size {
                    header = TarHeader(block: base + at)
                    at += TarHeader.size
                    position &+= UInt64(TarHeader.size)
                } else {
                    let count = min(TarHeader.size - blockCount, end - at)
                    (block + blockCount).copyMemory(from: base + at, byteCount: count)
                    blockCount += count
                    at += count
                    position &+= UInt64(count)
                    guard blockCount == TarHeader.size else { break }
                    header = TarHeader(block: UnsafeRawPointer(block))
                    blockCount = 0
                }
                if let entry = try read(header) {
                    switch state {
                    case .smallContent: current = entry
                    case .external:
                        try handOver(base, &pending, at, to: &handler)
                        try handler.entry(entry, .external(size: entry.size))
                        current = entry
                    default: try handler.entry(entry, entry.kind == .regular ? .inline(ByteString()) : .none)
                    }
                }
            case .extensionData(let kind):
                collect(base, &at, end)
                if remaining == 0 { try finishExtension(kind) }
            case .smallContent:
                collect(base, &at, end)
                if remaining == 0 {
                    let entry = current
                    let content = ByteString(collected)
                    enterPadding()
                    if let entry { try handler.entry(entry, .inline(content)) }
                }
            case .external:
                try handOver(base, &pending, at, to: &handler)
                let count = take(end - at)
                let chunk = UnsafeRawBufferPointer(start: base + at, count: count)
                at += count
                pending = at
                let isLast = remaining == 0
                if isLast { enterPadding() }
                try handler.external(chunk, isLast: isLast)
            case .skipped:
                at += take(end - at)
                if remaining == 0 { enterPadding() }
            case .padding:
                at += take(end - at)
                if remaining == 0 { state = .header }
            case .ended:
                position &+= UInt64(end - at)
                at = end
            }
        }
        try handOver(base, &pending, at, to: &handler)
        if case .ended = state, sinceBoundary >= Self.boundaryInterval {
            sinceBoundary = 0
            try handler.boundary()
        }
    }

    /// Skips the content of the entry just received, for a caller that has the content elsewhere, such as a reader of a split stream.
    ///
    /// - Returns: The size of the content in bytes, as in the archive.
    /// - Throws: `TarError` if no external content begins here. A stream that has an object here is invalid.
    public mutating func skipExternal() throws(TarError) -> UInt64 {
        guard case .external = state, remaining == externalSize else {
            throw TarError(offset: position, path: current?.path, reason: .notAtExternalContent)
        }
        position &+= remaining
        enterPadding()
        return externalSize
    }

    /// Ends the archive.
    ///
    /// - Throws: `TarError` if the archive ends inside an entry, or after an extension header without an entry.
    public mutating func finish() throws(TarError) {
        switch state {
        case .ended: return
        case .header, .zeroBlock, .padding:
            // A truncated block of zeros, from an entry's padding or the end marker, carries no information.
            for offset in 0..<blockCount where block.load(fromByteOffset: offset, as: UInt8.self) != 0 {
                throw TarError(offset: position &- UInt64(blockCount), path: nil, reason: .truncated("a header"))
            }
            if hasExtension { throw TarError(offset: position, path: nil, reason: .danglingExtension) }
        case .extensionData(let kind): throw fault(.truncated("a \(kind.name) header"))
        case .sparseMap: throw fault(.truncated("a sparse file's map"))
        case .smallContent, .external: throw fault(.truncated("the file's content"))
        case .skipped: throw fault(.truncated("an entry's data"))
        }
    }

    // MARK: Data

    private mutating func handOver<Handler: TarHandler & ~Copyable>(
        _ base: UnsafeRawPointer, _ pending: inout Int, _ at: Int, to handler: inout Handler
    ) throws {
        guard pending < at else { return }
        let chunk = UnsafeRawBufferPointer(start: base + pending, count: at - pending)
        sinceBoundary &+= chunk.count
        pending = at
        try handler.inline(chunk)
    }

    /// Consumes at most `available` bytes of the current data and returns how many.
    private mutating func take(_ available: Int) -> Int {
        let count = min(remaining, UInt64(available))
        remaining -= count
        position &+= count
        return Int(count)
    }

    private mutating func collect(_ base: UnsafeRawPointer, _ at: inout Int, _ end: Int) {
        let count = take(end - at)
        collected.append(contentsOf: UnsafeRawBufferPointer(start: base + at, count: count))
        at += count
    }

    private mutating func enterPadding() {
        current = nil
        collected.removeAll(keepingCapacity: collected.capacity <= 4096)
        remaining = padding
        state = padding > 0 ? .padding : .header
    }

    private mutating func enterData(_ size: UInt64, _ next: State) {
        remaining = size
        padding = (0 &- size) & UInt64(TarHeader.size - 1)
        if size > 0 { state = next } else { enterPadding() }
    }

    private func fault(_ reason: TarError.Reason) -> TarError { TarError(offset: position, path: current?.path, reason: reason) }

    // MARK: Headers

    /// Parses one block and enters the state that follows it. Returns the entry when the block completes one.
    private mutating func read(_ header: TarHeader) throws(TarError) -> TarEntry? {
        if case .sparseMap = state { return try readSparseMap(header) }
        let offset = position &- UInt64(TarHeader.size)
        do throws(TarFault) {
            if try header.validity() == .zero {
                guard !hasExtension else { throw TarFault(.danglingExtension) }
                if case .zeroBlock = state { state = .ended } else { state = .zeroBlock }
                return nil
            }
            if case .zeroBlock = state { throw TarFault(.strayZeroBlock) }
        } catch {
            // After a zero block, any block that is not zero is an error, even a valid header.
            if case .zeroBlock = state { throw TarError(offset: offset, path: nil, reason: .strayZeroBlock) }
            throw TarError(offset: offset, path: nil, reason: error.reason)
        }
        let format = header.format
        do throws(TarFault) {
            switch header.typeFlag {
            case UInt8(ascii: "g"):
                let size = try header.size()
                guard size <= limits.extensionBytes else { throw TarFault(.extensionTooLarge(limit: limits.extensionBytes)) }
                enterData(size, .skipped)
                return nil
            case UInt8(ascii: "x") where format != .v7: try enterExtension(header, .pax, isRepeated: pax != nil)
            case UInt8(ascii: "L") where format != .v7: try enterExtension(header, .longName, isRepeated: longName != nil)
            case UInt8(ascii: "K") where format != .v7: try enterExtension(header, .longLink, isRepeated: longLink != nil)
            default: return try readEntry(header, format, offset)
            }
            return nil
        } catch {
            throw TarError(offset: offset, path: pax?.sparse?.name ?? pax?.path ?? longName ?? header.path(format), reason: error.reason)
        }
    }

    private mutating func enterExtension(_ header: TarHeader, _ kind: ExtensionKind, isRepeated: Bool) throws(TarFault) {
        guard !isRepeated else { throw TarFault(.duplicateExtension(kind.name)) }
        let size = try header.size()
        guard size <= limits.extensionBytes &- extensionBytes else { throw TarFault(.extensionTooLarge(limit: limits.extensionBytes)) }
        extensionBytes += size
        hasExtension = true
        collected.removeAll(keepingCapacity: true)
        enterData(size, .extensionData(kind))
        if size == 0 {
            switch kind {
            case .pax: pax = try PaxRecords([])
            case .longName: longName = ByteString()
            case .longLink: longLink = ByteString()
            }
        }
    }

    private mutating func finishExtension(_ kind: ExtensionKind) throws(TarError) {
        do throws(TarFault) {
            switch kind {
            case .pax: pax = try PaxRecords(collected)
            case .longName: longName = try cString(collected)
            case .longLink: longLink = try cString(collected)
            }
        } catch {
            throw fault(error.reason)
        }
        enterPadding()
    }

    /// Reads a name, which may be followed by NULs but must not contain any.
    private func cString(_ bytes: [UInt8]) throws(TarFault) -> ByteString {
        var name = bytes[...]
        while name.last == 0 { name.removeLast() }
        guard !name.contains(0) else { throw TarFault(.nulInName) }
        return ByteString(name)
    }

    /// Returns nil if the entry's map continues in another block.
    private mutating func readEntry(_ header: TarHeader, _ format: TarHeader.Format, _ offset: UInt64) throws(TarFault) -> TarEntry? {
        var kind = Self.kind(header.typeFlag, format)
        // Fields that a PAX record overrides are not parsed: writers put arbitrary values into fields that are too small.
        let uid = if let value = pax?.uid { value } else { try header.uid() }
        let gid = if let value = pax?.gid { value } else { try header.gid() }
        let mtime = if let value = pax?.mtime { value } else { (seconds: try header.seconds(), nanoseconds: UInt32(0)) }
        var entry = TarEntry(
            path: pax?.sparse?.name ?? pax?.path ?? longName ?? header.path(format),
            linkTarget: pax?.linkTarget ?? longLink ?? header.linkName, kind: kind,
            mode: try header.mode(), uid: uid, gid: gid, mtime: mtime, size: 0, deviceMajor: 0, deviceMinor: 0,
            extendedAttributes: pax?.extendedAttributes ?? [], headerOffset: offset)
        if kind == .regular {
            entry.size = if let value = pax?.size { value } else { try header.size() }
            if entry.size == 0, entry.path.bytes.last == UInt8(ascii: "/") {
                // V7 has no other way to mark a directory, and some writers of later formats do the same.
                kind = .directory
                entry.kind = kind
            }
        }
        let pathBytes = entry.path.count
        guard pathBytes <= limits.pathBytes else { throw TarFault(.pathTooLong(bytes: pathBytes, limit: limits.pathBytes)) }
        let isOldSparse = header.typeFlag == UInt8(ascii: "S") && kind == .regular
        switch kind {
        case .other: entry.size = if let value = pax?.size { value } else { try header.size() }
        case .regular:
            if isOldSparse {
                entry.sparse = TarSparse(realSize: try header.sparseSize(), segments: try header.sparseSegments(at: 386, count: 4))
            } else if let records = pax?.sparse {
                entry.sparse = try records.sparse()
            }
        case .hardLink, .symbolicLink:
            guard !entry.linkTarget.isEmpty else { throw TarFault(.emptyLinkTarget) }
            guard entry.linkTarget.count <= limits.linkTargetBytes else {
                throw TarFault(.linkTargetTooLong(limit: limits.linkTargetBytes))
            }
        case .characterDevice, .blockDevice:
            guard format != .v7 else { throw TarFault(.noDeviceNumbers) }
            (entry.deviceMajor, entry.deviceMinor) = try header.device()
        case .directory, .fifo: break
        }
        if hasExtension {
            longName = nil
            longLink = nil
            pax = nil
            extensionBytes = 0
            hasExtension = false
        }
        if isOldSparse, header.isSparseContinued(482) {
            current = entry
            state = .sparseMap
            return nil
        }
        return try enterContent(of: entry)
    }

    private mutating func enterContent(of entry: TarEntry) throws(TarFault) -> TarEntry {
        if let sparse = entry.sparse, let segments = sparse.segments {
            try TarSparse.check(segments, realSize: sparse.realSize, stored: entry.size)
        }
        if entry.kind != .regular {
            enterData(entry.size, .skipped)
        } else if entry.size > TarContent.inlineLimit {
            externalSize = entry.size
            enterData(entry.size, .external)
        } else {
            enterData(entry.size, .smallContent)
        }
        return entry
    }

    /// Parses one block of a sparse map. Returns the entry after the last block.
    private mutating func readSparseMap(_ block: TarHeader) throws(TarError) -> TarEntry? {
        // `current` was set when the parser entered this state.
        do throws(TarFault) {
            current?.sparse?.segments?.append(contentsOf: try block.sparseSegments(at: 0, count: 21))
            guard current?.sparse?.segments?.count ?? 0 <= TarSparse.segmentLimit else {
                throw TarFault(.badSparse("its map has more than \(TarSparse.segmentLimit) segments"))
            }
            if block.isSparseContinued(504) { return nil }
            guard let entry = current.take() else { return nil }
            return try enterContent(of: entry)
        } catch {
            throw fault(error.reason)
        }
    }

    private static func kind(_ flag: UInt8, _ format: TarHeader.Format) -> TarEntry.Kind {
        switch flag {
        case UInt8(ascii: "0"), 0, UInt8(ascii: "7"): .regular
        case UInt8(ascii: "1"): .hardLink
        case UInt8(ascii: "2"): .symbolicLink
        case UInt8(ascii: "3"): .characterDevice
        case UInt8(ascii: "4"): .blockDevice
        case UInt8(ascii: "5"): .directory
        case UInt8(ascii: "6"): .fifo
        case UInt8(ascii: "S") where format == .gnu: .regular
        default: .other(flag)
        }
    }
}

// Only this owner reaches the block buffer, and it cannot be copied.
extension TarParser: @unchecked Sendable {}
