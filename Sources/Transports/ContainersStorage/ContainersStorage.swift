import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsOCIModel

/// The image storage that podman, buildah, skopeo and cri-o share (containers/storage), with the overlay driver. It is only read.
struct ContainersStorage: Sendable {
    struct Image: Sendable {
        var id: String
        var digest: ContentDigest?
        var names: [String]
        /// The uppermost layer; nil if the image has no layers.
        var topLayer: String?
    }

    struct Layer: Sendable {
        var id: String
        var parent: String?
        /// The digest of the uncompressed archive.
        var digest: ContentDigest?
        /// The size of the uncompressed archive, in bytes.
        var size: UInt64?
    }

    let root: ByteString
    let images: [Image]
    let layers: [String: Layer]

    private static let indexLimit = 256 << 20

    /// - Returns: nil if there is no storage at `root`.
    /// - Throws: `OCIError` if the storage has another driver, is damaged or cannot be read by this user; `SystemError`.
    init?(_ root: ByteString) throws {
        guard let directory = try? DirectoryFiles(root) else { return nil }
        self.root = root
        guard let bytes = try Self.readIndex(directory, "overlay-images/images.json") else {
            for driver in ["vfs", "btrfs", "zfs"] where try Self.readIndex(directory, ByteString("\(driver)-images/images.json")) != nil {
                throw OCIError.unsupported(document: root.description, .storageDriver(driver))
            }
            return nil
        }
        images = try Self.list(bytes, "\(root)/overlay-images/images.json") { fields throws(OCIError) in
            Image(
                id: try Self.identifier(fields, "id"), digest: try fields.string("digest").flatMap { ContentDigest($0) },
                names: try fields.strings("names") ?? [], topLayer: try fields.has("layer") ? Self.identifier(fields, "layer") : nil)
        }
        let layerBytes = try Self.readIndex(directory, "overlay-layers/layers.json") ?? Array("[]".utf8)
        let list = try Self.list(layerBytes, "\(root)/overlay-layers/layers.json") { fields throws(OCIError) in
            let size = try fields.has("diff-size") ? fields.signed("diff-size") : nil
            return Layer(
                id: try Self.identifier(fields, "id"), parent: try fields.string("parent").flatMap { $0.isEmpty ? nil : $0 },
                digest: try fields.string("diff-digest").flatMap { ContentDigest($0) }, size: size.flatMap { UInt64(exactly: $0) })
        }
        layers = Dictionary(list.map { ($0.id, $0) }) { first, _ in first }
    }

    private static func readIndex(_ directory: DirectoryFiles, _ path: ByteString) throws -> [UInt8]? {
        do {
            return try directory.read(path, limit: indexLimit)
        } catch let error as SystemError where error.errno == .accessDenied {
            throw OCIError.damaged(source: directory.name, .storageNotReadable)
        }
    }

    private static func list<Element>(
        _ bytes: [UInt8], _ document: String, _ body: (DocumentFields) throws(OCIError) -> Element
    ) throws(OCIError) -> [Element] {
        var elements: [Element] = []
        for fields in try DocumentFields.array(parsing: bytes, document: document, limit: indexLimit) { elements.append(try body(fields)) }
        return elements
    }

    /// An identifier becomes part of a path, so only letters and digits are accepted.
    private static func identifier(_ fields: DocumentFields, _ key: String) throws(OCIError) -> String {
        let text = try fields.requiredString(key)
        guard !text.isEmpty, text.utf8.allSatisfy({ ByteClass.isLowerAlphanumeric($0) }) else {
            throw fields.malformed(key, .notIdentifier(text))
        }
        return text
    }

    /// A document that the storage keeps with an image: its manifest or config. Nil if it is missing.
    ///
    /// - Parameter limit: the largest size that is read, in bytes.
    func item(_ key: String, of image: Image, limit: Int) throws -> [UInt8]? {
        let isPlain = key.utf8.allSatisfy { ByteClass.isAlphanumeric($0) || $0 == UInt8(ascii: ".") }
        let file = isPlain ? key : "=" + Base64.encode(Array(key.utf8))
        return try DirectoryFiles(root).read(ByteString("overlay-images/\(image.id)/\(file)"), limit: limit)
    }

    /// The locations of storages if no configuration states them, in the order in which they are searched.
    static func defaultRoots() -> [ByteString] {
        var roots: [ByteString] = []
        func add(_ path: ByteString?, _ suffix: ByteString = "") {
            guard let path, !path.isEmpty, !roots.contains(path + suffix) else { return }
            roots.append(path + suffix)
        }
        add(Host.environment("CONTAINERS_STORAGE_ROOT"))
        if let home = Host.environment("HOME") {
            add(Host.environment("XDG_DATA_HOME"), "/containers/storage")
            add(home, "/.local/share/containers/storage")
        }
        add("/var/lib/containers/storage")
        for option in Host.environment("STORAGE_OPTS")?.bytes.split(separator: UInt8(ascii: ",")) ?? [] {
            let text = ByteString(option)
            let key: ByteString = "additionalimagestore="
            if text.hasPrefix(key) { add(ByteString(text.bytes.dropFirst(key.count))) }
        }
        return roots
    }
}
