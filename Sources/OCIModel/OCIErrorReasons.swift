public import ComposefsBytes
public import ComposefsCompression
public import ComposefsHashing
public import ComposefsJSON

// The reasons inside an `OCIError`: one case for each, with its values. The sentences are made in OCIErrorText.swift.

extension OCIError {
    /// Why a document is malformed. Sizes are in bytes.
    public enum DocumentFault: Sendable, Hashable {
        case tooLarge(size: Int, limit: Int)
        case invalidJSON(JSONError)
        /// The document itself has another type than this.
        case wrongType(JSONValue.Kind, wanted: JSONValue.Kind)
        /// A member, by its path in the document.
        case member(String, MemberFault)
        /// A manifest's or index's own media type differs from that of its descriptor or response.
        case announcedType(own: String, announced: String)
        case bothManifestAndIndex
        case neitherManifestNorIndex
        /// A text is no path inside the archive.
        case invalidPath(String)
        /// The bytes are not those that the descriptor announces.
        case announcedSize(found: Int, announced: UInt64)
        case digest(ContentDigest)
        /// A descriptor announces a document that is not read.
        case announcedTooLarge(UInt64, limit: Int)
        case referenceName(String, NameFault)
    }

    /// Why a member of a document is malformed.
    public enum MemberFault: Sendable, Hashable {
        case missing
        case wrongType(JSONValue.Kind, wanted: WantedType)
        case empty
        case notBase64
        case notDigest(String)
        /// Not an integer from 0 to 2^63-1.
        case notSize(JSONValue)
        /// Embedded data differs from the descriptor that holds it.
        case notDescribed
        /// `schemaVersion` is not 2.
        case notVersion2
        /// The type of a config's `rootfs` is not `layers`.
        case notLayers(String)
        /// The storage's identifiers consist of lower-case letters and digits.
        case notIdentifier(String)
        /// The type of a tar-split entry is neither 1 (file) nor 2 (segment).
        case notEntryType
    }

    public enum WantedType: Sendable, Hashable {
        case string, integer, object, array
    }

    /// Why a name is no reference name in a layout.
    public enum NameFault: Sendable, Hashable {
        case empty
        case controlCharacter
        /// The limit in bytes.
        case tooLong(limit: Int)
        /// A component is empty, `.` or `..`.
        case path
    }

    /// What is not supported. Sizes are in bytes.
    public enum Unsupported: Sendable, Hashable {
        /// A media type that is neither that of an image manifest nor of an index.
        case mediaType(String)
        case manifestInsteadOfIndex
        case indexInsteadOfManifest
        /// Docker's image manifest version 2, schema 1.
        case schema1
        /// The layer, counted from 1.
        case encryptedLayer(Int)
        case layerMediaType(layer: Int, String)
        case archiveFormat(ForeignFormat)
        case layerFormat(ForeignFormat)
        /// A sparse file is part of the archive itself.
        case sparseFile
        case tooManyFiles(files: Int, nameBytes: Int)
        case archiveTooLarge(limit: UInt64)
        /// The decompressed archive needs more than half of the free space of this directory's file system.
        case noSpace(limit: UInt64, directory: ByteString)
        /// The archive decompresses to more than this many times its size.
        case compressionRatio(limit: UInt64, CompressionFormat)
        /// The destination exists and is another file.
        case destinationNotRegular
        /// The destination is a directory with other files.
        case destinationNotLayout
        case layoutVersion(String)
        /// The version file of a `dir:` is unknown.
        case directoryVersion
        case storageDriver(String)
        case storedArtifact
        /// An index and the indexes in it list more documents than this.
        case tooManyDocuments(limit: Int)
    }

    /// Why a text is no reference, platform or destination.
    public enum ReferenceFault: Sendable, Hashable {
        case empty
        case notText
        /// The part after `@`.
        case notDigest
        /// The part after the last colon.
        case notTag
        /// The part before the first slash.
        case notHost
        case upperCase
        case notReference
        case imageID
        /// The limit in characters.
        case tooLong(limit: Int)
        case notPlatform
        /// Nothing follows the name of the transport.
        case nothingAfter(String)
        /// A URL scheme, for example `https://`.
        case scheme(String)
        case unsupportedTransport(String)
        case notSource
        case notDestination
        /// Standard input, although the source must be opened several times.
        case readOnce
        /// The source or destination cannot hold an index.
        case noIndex
        case destinationByDigest
        case invalidName(NameFault)
        case relativeStorageRoot
    }

    /// The names of the images in a layout or archive.
    public struct AvailableImages: Sendable, Hashable {
        public enum Container: String, Sendable {
            case layout, archive
        }

        /// How an image can be named.
        public enum Name: Sendable, Hashable {
            case tag(String)
            case digest(ContentDigest)
            /// The index in the archive, from 0.
            case index(Int)
        }

        public var container: Container
        /// In the container's order.
        public var names: [Name]

        package init(in container: Container, _ names: [Name]) {
            self.container = container
            self.names = names
        }
    }

    /// What a name of an image is ambiguous between.
    public enum Ambiguity: Sendable, Hashable {
        /// No name was given, and there are several images.
        case unnamed(AvailableImages)
        case name(String, AvailableImages)
        /// Several entries of a layout have the name.
        case entries(name: String, count: Int)
        /// The beginning of an image ID that several images share.
        case imageID
    }

    /// What a source does not have.
    public enum Missing: Sendable, Hashable {
        /// The addresses that the manifest gives for a foreign layer; nil for any other blob.
        case blob(ContentDigest, foreignURLs: [String]?)
        case manifest(ContentDigest)
        case config(path: ByteString)
        case layer(path: ByteString)
        /// A file that every source of this kind has.
        case file(String, Kind)
        /// An archive that has neither the files of a layout nor those of a docker archive.
        case imageFiles
        /// The archive was written by a docker release before 1.10.
        case oldDockerArchive
        case anyImage(AvailableImages.Container)
        case image(String, AvailableImages)
        /// Docker archives have no digests.
        case digestInArchive(AvailableImages)
        case listedManifest(ContentDigest, AvailableImages)
        /// An entry by its index from 0, and the number of entries.
        case entry(Int, count: Int, AvailableImages)
        case invalidName(String, NameFault)
        /// No storage at any of these directories.
        case storage([ByteString])
        /// No such image in the storages at these directories.
        case storedImage([ByteString])
        /// The image of this ID has other names.
        case storedName(imageID: String, names: [String])
        /// The tar-split data of the layer of this ID.
        case tarSplit(layer: String)
        /// The source's image is another one than the manifest that is needed.
        case otherImage(found: ContentDigest, wanted: ContentDigest)

        public enum Kind: Sendable, Hashable {
            case layout, dockerArchive, directory
        }
    }

    /// How a source or destination is damaged. Sizes are in bytes.
    public enum Damage: Sendable, Hashable {
        case empty
        case notRegularFile(ByteString)
        case symbolicLink(ByteString)
        case notDirectory(ByteString)
        /// A link leads out of the directory.
        case outside(ByteString)
        case tooManyLinks(ByteString)
        /// The archive itself is neither a regular file nor a pipe.
        case notReadableFile
        case fileTooLarge(ByteString, size: UInt64, limit: Int)
        case manifestTooLarge(ContentDigest, size: UInt64, limit: Int)
        case blobSize(ContentDigest, found: UInt64, announced: UInt64)
        /// A docker archive's manifest.json and config disagree.
        case layerCount(manifest: Int, config: Int)
        case storedLayerCount(layers: Int, diffIDs: Int)
        /// The archive ends inside the content of a file.
        case cutFile
        /// The text of the tar parser's error, with the offset.
        case tar(String)
        case compression(CompressionError)
        case storageNotReadable
        case storedManifest(imageID: String)
        case storedConfig(imageID: String)
        case storedLayer(String)
        /// The storage records another archive for the layer of this ID.
        case layerNotRecorded(String, ContentDigest)
        case tarSplitCompression(CompressionError)
        case tarSplitLine(limit: Int)
        /// A file of a layer became shorter while it was read.
        case shrunk
        case missingFile(ByteString)
        case fileSize(ByteString, found: UInt64, archived: UInt64)
        /// Another user put a directory in place of the one that was created.
        case replacedDirectory
        /// Another program removed a directory while the image was written.
        case removedDirectory(ByteString)
    }
}
