package import ComposefsBytes
package import ComposefsHashing
import ComposefsLinuxSystem
package import ComposefsRepository
package import ComposefsTar

/// Sparse files of a layer. The archive holds only a part of such a file's content. The layer's stream has that part, so that it
/// re-assembles to the archive. The whole file is another object, to which the stream has a named reference (Repo-Format.md 7.2).
package enum SparseFile {
    /// What an archive holds of a sparse file.
    package enum Stored {
        case inline(ByteString)
        case object(ObjectID)
    }

    /// What the names of references to contents of sparse files begin with.
    static let referencePrefix = "sparse:"

    /// The name of the reference to the content of the file whose header is at this offset of the archive.
    package static func referenceName(_ entry: TarEntry) -> String { "\(referencePrefix)\(entry.headerOffset)" }

    /// Stores a sparse file's whole content; nil for a file that is short enough to be stored in images.
    package static func store(_ entry: TarEntry, _ stored: Stored, in repository: Repository) throws -> ObjectID? {
        guard isExternal(entry) else { return nil }
        var writer = try repository.makeObjectWriter()
        try expand(entry, stored, in: repository) { part in
            switch part {
            case .hole(let count): writer.append(zeros: count)
            case .data(let bytes): try writer.append(bytes)
            }
        }
        return try writer.finish().id
    }

    /// A sparse file's whole content, computed from the archive. Nothing is stored.
    static func content(_ entry: TarEntry, _ stored: Stored, in repository: Repository) throws -> StoredContent {
        guard isExternal(entry) else {
            var content: [UInt8] = []
            try expand(entry, stored, in: repository) { part in
                switch part {
                // At most 64 bytes in all.
                case .hole(let count): content += [UInt8](repeating: 0, count: Int(count))
                case .data(let bytes): content += bytes
                }
            }
            return .inline(ByteString(content))
        }
        var hasher = VerityHasher(repository.algorithm)
        try expand(entry, stored, in: repository) { part in
            switch part {
            case .hole(let count): hasher.update(zeros: count)
            case .data(let bytes): hasher.update(bytes)
            }
        }
        return .external(hasher.finalize(), size: entry.sparse?.realSize ?? 0)
    }

    private static func isExternal(_ entry: TarEntry) -> Bool { entry.sparse?.realSize ?? 0 > TarContent.inlineLimit }

    private static func expand(
        _ entry: TarEntry, _ stored: Stored, in repository: Repository, _ body: (SparseExpansion.Part) throws -> Void
    ) throws {
        guard var expansion = try SparseExpansion(entry) else { preconditionFailure("only sparse files have holes") }
        switch stored {
        case .inline(let bytes): try bytes.bytes.withUnsafeBytes { try expansion.feed($0, body) }
        case .object(let id):
            let object = try repository.openObject(id, verify: repository.isSecure)
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 18, alignment: 4096)
            defer { buffer.deallocate() }
            while true {
                let count = try object.read(into: buffer)
                if count == 0 { break }
                try expansion.feed(UnsafeRawBufferPointer(rebasing: buffer[..<count]), body)
            }
        }
        try expansion.finish(body)
    }
}
