package import ComposefsBytes
package import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsRepository
import ComposefsSplitStream

/// What the objects of a store are by their content, for a repair: names are lost then, or lead to something else.
///
/// Every object is looked at, the small ones that may be documents are hashed.
package struct StoreCatalog {
    /// Streams of layers and blobs by the digests in their hints.
    private var layers: [ContentDigest: [ObjectID]] = [:]
    /// Objects that may be manifests or configs, by the digests of their content.
    private var documents: [ContentDigest: ObjectID] = [:]
    private let store: ImageStore

    /// - Throws: `RepositoryError` where the objects cannot be listed; those that cannot be read are left out.
    package init(_ store: ImageStore) throws {
        self.store = store
        let repository = store.repository
        let magic = Array("SplitStream".utf8)
        for id in try repository.objectIDs() {
            guard let size = try? repository.objectSize(id), size > 0, let head = try? repository.beginning(of: id, 32) else { continue }
            if head.starts(with: magic) || head.dropFirst(18).starts(with: magic) {
                guard let hint = try? LayerHint.text(on: id, in: repository), let digest = hint.utf8Text.flatMap({ ContentDigest($0) })
                else { continue }
                layers[digest, default: []].append(id)
            } else if size <= UInt64(ImageLimits.largestManifest), Self.mayBeDocument(head),
                let bytes = try? repository.readObject(id, limit: ImageLimits.largestManifest)
            {
                for algorithm in DigestAlgorithm.allCases { documents[.of(bytes, algorithm)] = id }
            }
        }
    }

    /// Manifests and configs are JSON objects.
    private static func mayBeDocument(_ head: [UInt8]) -> Bool {
        head.first { $0 != 0x20 && $0 != 0x0a && $0 != 0x0d && $0 != 0x09 } == UInt8(ascii: "{")
    }

    /// A manifest's or config's bytes.
    package func document(_ digest: ContentDigest) -> [UInt8]? {
        guard let id = documents[digest] else { return nil }
        return try? store.repository.readObject(id, limit: ImageLimits.largestManifest)
    }

    /// Gives the streams of a manifest's layers and blobs their names again, where those are missing or lead to something else.
    ///
    /// - Returns: the names that were written.
    package func relinkLayers(_ identifiers: [ContentDigest]) throws -> [ByteString] {
        var publication = Repository.Publication()
        var names: [ByteString] = []
        for identifier in Set(identifiers).sorted() {
            let name = StreamName.layer(identifier)
            if let linked = try store.usableStream(name), try store.repository.isIntact(linked) { continue }
            guard let stream = try layers[identifier]?.first(where: { try store.repository.isIntact($0) }) else { continue }
            publication.stream(name, stream)
            names.append(name)
        }
        if !names.isEmpty { try store.repository.publish(publication) }
        return names
    }
}
