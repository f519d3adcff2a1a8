public import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem
public import ComposefsOCIModel
public import ComposefsSignaturePolicy

/// An image in `dir:DIR`, the format of `skopeo copy`: `manifest.json`, and each blob in a file named by the hexadecimal of its digest.
public struct DirectorySource: ImageSource {
    private let files: DirectoryFiles
    private let root: [UInt8]
    public let canonicalName: String
    public var policyIdentity: ImageIdentity { .file(files.path, transport: "dir") }

    /// - Throws: `OCIError` if the directory has another format, `SystemError`.
    public init(_ path: ByteString) throws {
        files = try DirectoryFiles(path)
        // Old versions of skopeo wrote no version file.
        if let version = try files.read("version", limit: 4096), !ByteString(version).hasPrefix("Directory Transport Version: 1.") {
            throw OCIError.unsupported(document: "\(path)/version", .directoryVersion)
        }
        guard let bytes = try files.read("manifest.json", limit: ImageLimits.largestManifest) else {
            throw OCIError.notFound(source: path, .file("manifest.json", .directory))
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

    /// The name contains the algorithm unless it is sha256.
    private static func name(_ descriptor: Descriptor) -> String {
        let digest = descriptor.digest
        return digest.algorithm == .sha256 ? digest.hex : "\(digest.algorithm.rawValue)-\(digest.hex)"
    }
}
