public import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem
public import ComposefsOCIModel

/// `dir:DIR`, as `skopeo copy` writes it: `manifest.json` and every blob under the hex of its digest.
public struct DirectorySource: ImageSource {
    private let files: DirectoryFiles
    private let root: [UInt8]
    public let canonicalName: String

    public init(_ path: ByteString) throws {
        files = try DirectoryFiles(path)
        // Older tools wrote no version.
        if let version = try files.read("version", limit: 4096), !ByteString(version).hasPrefix("Directory Transport Version: 1.") {
            throw OCIError.unsupported(document: "\(path)/version", "not a version of the directory format that is known")
        }
        guard let bytes = try files.read("manifest.json", limit: ImageLimits.largestManifest) else {
            throw OCIError.notFound(source: path, "there is no manifest.json; is it a directory that skopeo wrote?")
        }
        root = bytes
        canonicalName = "dir:\(path)"
    }

    public func rootManifest() -> SourceManifest { SourceManifest(bytes: root) }

    public func manifest(_ descriptor: Descriptor) throws -> [UInt8] {
        try files.manifest(ByteString(Self.name(descriptor) + ".manifest.json"), descriptor)
    }

    public func openBlob(_ descriptor: Descriptor) throws -> any BlobReader {
        try files.blob(ByteString(Self.name(descriptor)), descriptor)
    }

    /// Only algorithms other than sha256 are named.
    private static func name(_ descriptor: Descriptor) -> String {
        let digest = descriptor.digest
        return digest.algorithm == .sha256 ? digest.hex : "\(digest.algorithm.rawValue)-\(digest.hex)"
    }
}
