import ComposefsBytes
import ComposefsCompression
import ComposefsJSON

// The sentences of `OCIError`'s reasons. Each is a predicate or a clause that follows the name of the document or source.

extension OCIError.DocumentFault: CustomStringConvertible {
    public var description: String {
        switch self {
        case .tooLarge(let size, let limit): "it has \(size) bytes; the limit is \(limit)"
        case .invalidJSON(let error): error.description
        case .wrongType(let kind, let wanted): "it is \(kind), not \(wanted)"
        case .member(let name, let fault): "\"\(name)\" \(fault)"
        case .announcedType(let own, let announced): "its media type is \(quoted(own)), but it was announced as \(quoted(announced))"
        case .bothManifestAndIndex: "it is both a manifest and an index"
        case .neitherManifestNorIndex: "it is neither an image manifest nor an index"
        case .invalidPath(let text): "\(quoted(text)) is not a path in the archive"
        case .announcedSize(let found, let announced): "has \(found) bytes, but its descriptor announces \(announced)"
        case .digest(let digest): "the content has the digest \(digest): it is damaged or was exchanged"
        case .announcedTooLarge(let size, let limit): "the descriptor announces \(size) bytes; the limit is \(limit)"
        case .referenceName(let name, let fault): "the reference name \(quoted(name)) \(fault)"
        }
    }
}

extension OCIError.MemberFault: CustomStringConvertible {
    public var description: String {
        switch self {
        case .missing: "is missing"
        case .wrongType(let kind, let wanted): "is \(kind), not \(wanted)"
        case .empty: "is empty"
        case .notBase64: "is not base64"
        case .notDigest(let text): "is \(quoted(text)), not a sha256, sha384 or sha512 digest"
        case .notSize(let value): "is \(value.double == nil ? value.kind.description : value.description), not a size in bytes"
        case .notDescribed: "does not match the descriptor's size and digest"
        case .notVersion2: "is not 2"
        case .notLayers(let type): "is \(quoted(type)), not \"layers\""
        case .notIdentifier(let text): "is \(quoted(text)), not an identifier"
        case .notEntryType: "is neither 1 nor 2"
        }
    }
}

extension OCIError.WantedType: CustomStringConvertible {
    public var description: String {
        switch self {
        case .string: "a string"
        case .integer: "an integer"
        case .object: "an object"
        case .array: "an array"
        }
    }
}

extension OCIError.NameFault: CustomStringConvertible {
    public var description: String {
        switch self {
        case .empty: "is empty"
        case .controlCharacter: "contains control characters"
        case .tooLong(let limit): "is longer than \(limit) bytes"
        case .path: "is a path, not a name"
        }
    }
}

extension OCIError.Unsupported: CustomStringConvertible {
    public var description: String {
        switch self {
        case .mediaType(let type): "media type \(quoted(type)) is neither an image manifest nor an index"
        case .manifestInsteadOfIndex: "it is a manifest, not an index"
        case .indexInsteadOfManifest: "it is an index, not a manifest"
        case .schema1: "docker's schema 1 is not supported; push the image again with a current tool"
        case .encryptedLayer(let number): "layer \(number) is encrypted; decrypt the image first, as skopeo can"
        case .layerMediaType(let number, let type):
            "layer \(number) has the media type \(quoted(type)), which is not the type of an image layer"
        case .archiveFormat(let format):
            "is in \(format.rawValue) format; only uncompressed archives and archives compressed with gzip or zstd are supported. "
                + "Decompress it first, with \(format.command)"
        case .layerFormat(let format):
            "is in \(format.rawValue) format; only uncompressed layers and layers compressed with gzip or zstd are supported"
        case .sparseFile: "is a sparse file, which is supported only inside layers"
        case .tooManyFiles(let files, let nameBytes): "the archive has more than \(files) files or more than \(nameBytes) bytes of names"
        case .archiveTooLarge(let limit): "the archive is larger than \(limit) bytes"
        case .noSpace(let limit, let directory):
            "the decompressed archive is larger than \(limit) bytes, half of the free space at \(directory); the image would "
                + "not fit beside it. Decompress the archive on another file system and pull it from there"
        case .compressionRatio(let limit, let format):
            "the archive decompresses to more than \(limit) times its size, which is not plausible for an image; "
                + "if it is correct, decompress it with \(format == .gzip ? "gzip -d" : "zstd -d") and pull the result"
        case .destinationNotRegular: "exists and is not a regular file"
        case .destinationNotLayout: "the directory is not empty and not an OCI layout; name a new or empty one"
        case .layoutVersion(let version): "layout version \(quoted(version)) is not supported, only 1.0.0"
        case .directoryVersion: "is not a known version of the directory format"
        case .storageDriver(let driver): "the storage driver \(ByteString(driver)) is not supported, only overlay"
        case .storedArtifact: "artifacts in the storage are not supported"
        case .tooManyDocuments(let limit): "lists more than \(limit) documents, the limit"
        }
    }
}

extension OCIError.ReferenceFault: CustomStringConvertible {
    public var description: String {
        switch self {
        case .empty: "is empty; name an image, for example docker.io/library/alpine:latest"
        case .notText: "is not UTF-8 text"
        case .notDigest: "the part after @ is not a sha256, sha384 or sha512 digest"
        case .notTag: "the part after the last colon is not a tag: letters, digits, '_', '.' and '-', at most 128"
        case .notHost: "the part before the first slash is not a host name"
        case .upperCase: "repository names are in lower case"
        case .notReference: "is not an image reference; write HOST/NAME:TAG, for example docker.io/library/alpine:latest"
        case .imageID: "64 hex digits are an image ID, not a name"
        case .tooLong(let limit): "is longer than \(limit) characters"
        case .notPlatform: "is not a platform; write OS/ARCH[/VARIANT], for example linux/arm64"
        case .nothingAfter(let transport): "nothing follows \(transport)"
        case .scheme(let scheme): "a registry reference does not begin with \(scheme); write docker://HOST/NAME:TAG"
        case .unsupportedTransport(let transport):
            "\(transport) is not supported; copy the image to oci-archive:FILE with skopeo and pull the archive"
        case .notSource: "does not name an image that can be pulled"
        case .notDestination: "is not a destination; name a repository of a registry, oci:DIR[:TAG] or oci-archive:FILE[:TAG]"
        case .readOnce: "is standard input, which can be read only once; write the archive to a file first"
        case .noIndex: "cannot hold an index; name a repository of a registry, oci:DIR[:TAG] or oci-archive:FILE[:TAG]"
        case .destinationByDigest: "a destination cannot be named by a digest or a position; write PATH or PATH:NAME"
        case .invalidName(let fault): "is not a valid reference name: it \(fault)"
        case .relativeStorageRoot: "the storage's root is not an absolute path"
        }
    }
}

extension OCIError.AvailableImages: CustomStringConvertible {
    public var description: String {
        guard !names.isEmpty else { return "the \(container.rawValue) has no images" }
        let shown = names.prefix(20).map(\.description).joined(separator: ", ")
        return "the \(container.rawValue) has \(shown)" + (names.count > 20 ? " and \(names.count - 20) more" : "")
    }
}

extension OCIError.AvailableImages.Name: CustomStringConvertible {
    public var description: String {
        switch self {
        case .tag(let tag): quoted(tag)
        case .digest(let digest): "@\(digest)"
        case .index(let index): "@\(index)"
        }
    }
}

extension OCIError.Ambiguity: CustomStringConvertible {
    public var description: String {
        switch self {
        case .unnamed(let available): "\(available); name one of them after a colon"
        case .name(let name, let available): "\(quoted(name)) names several images: \(available)"
        case .entries(let name, let count): "index.json has \(count) different images with the name \(quoted(name))"
        case .imageID: "more than one image ID begins with this"
        }
    }
}

extension OCIError.Missing: CustomStringConvertible {
    public var description: String {
        switch self {
        case .blob(let digest, let foreignURLs):
            "the blob \(digest) is missing" + (foreignURLs.map { ": " + Descriptor.foreignNote($0) } ?? "")
        case .manifest(let digest): "the manifest \(digest) is missing"
        case .config(let path): "the config \(path) is missing"
        case .layer(let path): "the layer \(path) is missing"
        case .file("oci-layout", .layout): "is not an OCI layout: the file oci-layout is missing"
        case .file(let name, .layout): "is not an OCI layout: \(name) is missing"
        case .file(let name, .dockerArchive): "is not a docker archive: \(name) is missing"
        case .file(let name, .directory): "is not a directory in skopeo's format: \(name) is missing"
        case .imageFiles: "is neither a docker archive nor an OCI layout: it has no manifest.json, and not both oci-layout and index.json"
        case .oldDockerArchive: "was written by a version of docker older than 1.10; load it and save it again"
        case .anyImage(.archive): "the archive has no image"
        case .anyImage(.layout): "index.json lists no image"
        case .image(let name, let available): "there is no image \(quoted(name)); \(available)"
        case .digestInArchive(let available): "images in docker archives have no digest; \(available)"
        case .listedManifest(let digest, let available): "index.json lists no manifest \(digest); \(available)"
        case .entry(let index, let count, let available):
            "there is no image @\(index) among \(count), counted from @0; \(available)"
        case .invalidName(let name, let fault): "\(quoted(name)) is not a valid reference name: it \(fault)"
        case .storage(let roots): "no storage with the overlay driver at \(Self.list(roots)); \(Self.otherStorage)"
        case .storedImage(let roots): "no such image in \(Self.list(roots)); \(Self.otherStorage)"
        case .storedName(let id, let names): "the image \(id) does not have this name; it has \(names.joined(separator: ", "))"
        case .tarSplit(let layer): "the layer \(layer) has no tar-split data, without which its archive cannot be re-assembled"
        case .otherImage(let found, let wanted): "is another image now, \(found); manifest \(wanted) is needed"
        }
    }

    private static func list(_ roots: [ByteString]) -> String { roots.map(\.description).joined(separator: " or ") }

    private static let otherStorage = "for another location write containers-storage:[overlay@DIR]NAME, or set it in storage.conf"
}

extension OCIError.Damage: CustomStringConvertible {
    public var description: String {
        switch self {
        case .empty: "is empty"
        case .notRegularFile(let path): "\(path) is not a regular file"
        case .symbolicLink(let path): "\(path) is a symbolic link, which is not followed"
        case .notDirectory(let path): "\(path) is not a directory"
        case .outside(let path): "\(path) is outside of the directory"
        case .tooManyLinks(let path): "too many links lead to \(path)"
        case .notReadableFile: "is neither a regular file nor a pipe"
        case .fileTooLarge(let path, let size, let limit): "\(path) has \(size) bytes; the limit is \(limit)"
        case .manifestTooLarge(let digest, let size, let limit): "the manifest \(digest) has \(size) bytes; the limit is \(limit)"
        case .blobSize(let digest, let found, let announced):
            "the blob \(digest) has \(found) bytes, but its descriptor announces \(announced)"
        case .layerCount(let manifest, let config): "manifest.json lists \(manifest) layers, but the config lists \(config) diff IDs"
        case .storedLayerCount(let layers, let diffIDs):
            "the storage has \(layers) layers of the image, but its config lists \(diffIDs) diff IDs"
        case .cutFile: "the archive ends inside the content of a file"
        case .tar(let text): text
        case .compression(let error): error.description
        case .storageNotReadable: "this user may not read the storage; run the command inside `podman unshare`"
        case .storedManifest(let id): "the storage has no manifest of image \(id)"
        case .storedConfig(let id): "the storage has no config of image \(id)"
        case .storedLayer(let id): "the storage has no layer \(quoted(id))"
        case .layerNotRecorded(let id, let diffID):
            "the storage does not record the layer \(id) as the archive \(diffID); pull the image again with podman"
        case .tarSplitCompression(let error): "tar-split: \(error)"
        case .tarSplitLine(let limit): "a line of the tar-split data is longer than \(limit) bytes"
        case .shrunk: "a file became shorter while it was read"
        case .missingFile(let path): "the file \(path) is missing"
        case .fileSize(let path, let found, let archived): "the file \(path) has \(found) bytes, but the layer's archive has \(archived)"
        case .replacedDirectory: "another user has replaced the directory that was created"
        case .removedDirectory(let path): "another program has removed \(path) while the image was written"
        }
    }
}
