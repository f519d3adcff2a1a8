import ComposefsBytes
import ComposefsCompression
import ComposefsOCIModel
import ComposefsTar

/// The offset and size of each file's content in an archive. If several entries have one name, the last one counts.
struct TarIndex: TarHandler {
    enum Entry: Sendable {
        case file(offset: UInt64, size: UInt64)
        /// A hard or symbolic link; the target is a path relative to the archive's root.
        case link(ByteString)
    }

    let source: ByteString
    private(set) var entries: [ByteString: Entry] = [:]
    /// Set when the next bytes are the content of the last entry.
    var isAtContent = false
    /// The most bytes that one file may have; nil if the archive is read in place and takes no additional space.
    private let largestFile: UInt64?
    private var nameBytes = 0
    /// The archive's first bytes.
    private var prefix: [UInt8] = []

    /// Limits for the memory that the index takes: the number of entries, and the bytes of their names.
    private static let entryLimit = 1 << 20
    private static let nameLimit = 128 << 20
    /// The number of bytes that identify a format.
    static let prefixBytes = 16

    init(source: ByteString, largestFile: UInt64? = nil) {
        self.source = source
        self.largestFile = largestFile
    }

    /// Keeps the archive's first bytes, which `explain` needs.
    mutating func notePrefix(_ bytes: UnsafeRawBufferPointer) {
        if prefix.count < Self.prefixBytes { prefix.append(contentsOf: bytes.prefix(Self.prefixBytes - prefix.count)) }
    }

    /// The error to report for an archive that cannot be parsed. If the file is not an archive but has a known format, the error names it.
    func explain(_ error: TarError) -> OCIError {
        guard error.offset < 512, let format = prefix.withUnsafeBytes({ ForeignFormat.detect($0) }) else {
            return .damaged(source: source, .tar(error.description))
        }
        return .unsupported(document: source.description, .archiveFormat(format))
    }

    // MARK: TarHandler

    mutating func inline(_ bytes: UnsafeRawBufferPointer) {}
    mutating func external(_ bytes: UnsafeRawBufferPointer, isLast: Bool) {}

    mutating func entry(_ entry: TarEntry, _ content: TarContent) throws {
        if case .external = content { isAtContent = true }
        if let largestFile, entry.size > largestFile {
            throw LimitExceeded(
                .layerBytes, allowed: largestFile, found: entry.size,
                location: "\(source): " + LimitExceeded.entry(entry.path, at: entry.headerOffset))
        }
        guard let path = normalizedPath(entry.path, relativeTo: []) else { return }
        let found: Entry?
        switch entry.kind {
        case .regular where entry.sparse != nil:
            throw OCIError.unsupported(document: "\(source), \(path)", .sparseFile)
        case .regular:
            let (offset, overflow) = entry.headerOffset.addingReportingOverflow(512)
            found = overflow ? nil : .file(offset: offset, size: entry.size)
        case .hardLink: found = normalizedPath(entry.linkTarget, relativeTo: []).map { .link($0) }
        case .symbolicLink:
            let parent = path.bytes.split(separator: UInt8(ascii: "/")).dropLast().map(Array.init)
            found = normalizedPath(entry.linkTarget, relativeTo: parent).map { .link($0) }
        default: found = nil
        }
        guard let found else {
            entries[path] = nil
            return
        }
        nameBytes += path.count
        if case .link(let target) = found { nameBytes += target.count }
        guard entries.count < Self.entryLimit, nameBytes <= Self.nameLimit else {
            throw OCIError.unsupported(
                document: source.description, .tooManyFiles(files: Self.entryLimit, nameBytes: Self.nameLimit))
        }
        entries[path] = found
    }
}

/// The path relative to the archive's root, without `.`, `..` and repeated slashes. Nil if it leads out of the archive or names its root.
func normalizedPath(_ path: ByteString, relativeTo parent: [[UInt8]]) -> ByteString? {
    var parts = path.bytes.first == UInt8(ascii: "/") ? [] : parent
    for part in path.bytes.split(separator: UInt8(ascii: "/")) {
        if part.elementsEqual(".".utf8) { continue }
        if part.elementsEqual("..".utf8) {
            guard parts.popLast() != nil else { return nil }
        } else {
            parts.append(Array(part))
        }
    }
    return parts.isEmpty ? nil : ByteString(Array(parts.joined(separator: [UInt8(ascii: "/")])))
}
