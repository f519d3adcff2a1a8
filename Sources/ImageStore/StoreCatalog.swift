package import ComposefsBytes
package import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsRepository
import ComposefsSplitStream

/// The objects of a store by their content, for a repair of lost or wrong links.
///
/// The beginning of every object is read, and small objects that may be documents are hashed.
package struct StoreCatalog {
    /// Streams of layers and blobs by the digests in their hints.
    private var layers: [ContentDigest: [ObjectID]] = [:]
    /// Objects that may be manifests or configs, by the digests of their content.
    private var documents: [ContentDigest: ObjectID] = [:]
    private let store: ImageStore

    /// - Throws: `RepositoryError` if the objects cannot be listed; objects that cannot be read are left out.
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

    /// The bytes of a manifest or config.
    package func document(_ digest: ContentDigest) -> [UInt8]? {
        guard let id = documents[digest] else { return nil }
        return try? store.repository.readObject(id, limit: ImageLimits.largestManifest)
    }

    /// Creates the links of the streams of a manifest's layers and blobs again if they are missing or lead to other objects.
    ///
    /// - Returns: the names of the links that were written.
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
