public import ComposefsBytes
public import ComposefsEROFS
public import ComposefsFileTree
public import ComposefsHashing
public import ComposefsJSON
public import ComposefsLinuxSystem
public import ComposefsSplitStream

// The reasons inside a `RepositoryError`: one case for each, with its values. The sentences are made here only.

/// Why nothing can be written to a repository.
public enum ReadOnlyReason: Sendable, CustomStringConvertible {
    /// The handle was opened with `OpenOptions.readOnly`.
    case openedReadOnly
    /// `meta.json` lists features that only a later release can keep up.
    case unknownFeatures([String])
    case readOnlyFileSystem
    /// The process may not write to the repository's directory.
    case access(SystemError)
    /// Another process holds the repository's lock.
    case usedByAnotherProcess
    /// The same handle is storing objects, which a collection would remove.
    case storing

    public var description: String {
        switch self {
        case .openedReadOnly: "it was opened for reading only"
        case .unknownFeatures(let names):
            "meta.json lists features this release cannot write: " + names.map { ByteString($0).description }.joined(separator: ", ")
        case .readOnlyFileSystem: "read-only file system"
        case .access(let error): "\(error)"
        case .usedByAnotherProcess: "another process uses it"
        case .storing: "this handle is storing objects, which would be collected"
        }
    }
}

/// Why bytes cannot be the name of a stream, an image or a reference.
public enum NameFault: Sendable, Hashable, CustomStringConvertible {
    /// `refs` is the directory of references.
    case reserved
    /// Only references may contain a slash.
    case slash
    case emptyComponent
    /// A component is longer than file systems allow.
    case componentTooLong(limit: Int)
    case containsNUL
    /// `.` or `..`.
    case dots
    /// A staged stream's name begins with a dot.
    case leadingDot
    /// `.leases` is the directory of leases.
    case leases

    public var description: String {
        switch self {
        case .reserved: "`refs` is the directory of references"
        case .slash: "a `/` is only allowed in references"
        case .emptyComponent: "a component is empty"
        case .componentTooLong(let limit): "a component is longer than \(limit) bytes"
        case .containsNUL: "it holds a NUL byte"
        case .dots: "`.` and `..` are not names"
        case .leases: "`.leases` is the directory of leases"
        case .leadingDot: "a staged stream's must not begin with a dot"
        }
    }
}

/// Why a file outside of the repository cannot be imported.
public enum SourceFault: Sendable, CustomStringConvertible {
    /// The file's size or times changed while it was read; both sizes in bytes if these differ.
    case changed(expected: UInt64, read: UInt64)
    /// Another file took its place after the directory was read.
    case replaced
    /// Images hold no files of its type.
    case unsupportedType
    /// The tree cannot hold it.
    case tree(FileTreeError)
    /// An object of another repository has other content than its name states; the actual digest, nil if it has no fs-verity.
    case damaged(actual: ObjectID?)

    public var description: String {
        switch self {
        case .changed(let expected, let read) where expected != read:
            "it changed while being read: \(expected) bytes were expected, \(read) read"
        case .changed: "it changed while being read"
        case .replaced: "it was replaced while the directory was being read"
        case .unsupportedType: "it is of a type that no image can hold"
        case .tree(let error): "\(error)"
        case .damaged(let actual?): "it is damaged: its content has the digest \(actual)"
        case .damaged(nil): "it is damaged: it has no fs-verity"
        }
    }
}

/// Why a file cannot be signed, or why the kernel refuses a signature (fs/verity/signature.c, crypto/asymmetric_keys).
public enum SignatureFault: Sendable, Hashable, CustomStringConvertible {
    /// The file is too large for a private key or a certificate; the limit in bytes.
    case fileTooLarge(limit: Int)
    /// The key or the certificate cannot be used, or nothing could be signed with it.
    case signer(VeritySignatureError)
    /// The repository has no fs-verity, so signatures have no meaning.
    case nothingToSign
    /// ENOKEY: the kernel's keyring lacks the certificate.
    case unknownCertificate
    /// EKEYREJECTED.
    case rejected
    /// EBADMSG: no PKCS#7 message that the kernel accepts.
    case malformed
    /// ENOPKG: the kernel lacks the algorithm.
    case unsupportedAlgorithm
    /// EMSGSIZE; the kernel's limit in bytes.
    case tooLong(limit: Int)
    /// EPERM: fs.verity.require_signatures is 1, and the file has no signature.
    case missing

    public var description: String {
        switch self {
        case .fileTooLarge(let limit): "is no key or certificate: it has \(limit) bytes or more"
        case .signer(let error): "\(error)"
        case .nothingToSign: "the repository has no fs-verity, so there is nothing that could be signed"
        case .unknownCertificate:
            "the certificate of its fs-verity signature is not in the kernel's .fs-verity keyring; "
                + "openssl x509 -in CERT -outform der | keyctl padd asymmetric '' %keyring:.fs-verity adds it"
        case .rejected:
            "the kernel rejects its fs-verity signature: it is of other content, or of another key than its certificate's"
        case .malformed:
            "its fs-verity signature is no PKCS#7 message that the kernel takes: in DER, detached, without signed attributes"
        case .unsupportedAlgorithm:
            "the kernel lacks the algorithm of its fs-verity signature; RSA with SHA-256 or SHA-512 is known to most"
        case .tooLong(let limit): "its fs-verity signature is longer than the \(limit) bytes that the kernel takes"
        case .missing:
            "it has no fs-verity signature, and the kernel's fs.verity.require_signatures is 1; set that to 0 for as long as it takes to store "
                + "it again, signed"
        }
    }
}

/// Why `meta.json` cannot be used, or seems to be damaged (Repo-Format.md, section 3).
public enum MetadataFault: Sendable, Hashable, CustomStringConvertible {
    case missing
    case symbolicLink
    case notRegularFile
    /// Both in bytes.
    case tooLarge(size: UInt64, limit: Int)
    case unreadable(SystemError)
    case invalidJSON(JSONError)
    /// The document is an array, a string, a number, a boolean or null.
    case notObject
    /// A member that every file has is missing; the object that should hold it, nil for the document itself.
    case missingMember(String, of: String?)
    /// A member, by its path in the document, has another type than this.
    case wrongType(member: String, wanted: WantedType)
    case unknownAlgorithm(String)
    case unknownImageVersion
    /// The objects' names are digests of another algorithm.
    case algorithmMismatch(recorded: VerityAlgorithm, found: VerityAlgorithm)
    /// Only the newline at the end is missing.
    case missingNewline
    /// An unknown key that is almost the name of a missing member; the object that holds it, nil for the document itself.
    case damagedKey(String, of: String?, meant: String)
    /// Version 0 was never written.
    case versionZero
    case unknownReadOnlyFeature(String)
    /// The default format is 0, but the feature of format 1 is listed.
    case contradictoryFormats(feature: String)

    public enum WantedType: Sendable, Hashable {
        case text, object, array, number32, listOfTexts
    }

    public var description: String {
        switch self {
        case .missing: "the file is missing"
        case .symbolicLink: "is a symbolic link"
        case .notRegularFile: "is no regular file"
        case .tooLarge(let size, let limit): "is \(size) bytes long; at most \(limit) are read"
        case .unreadable(let error): "\(error)"
        case .invalidJSON(let error): "\(error)"
        case .notObject: "holds no JSON object"
        case .missingMember(let name, let object?): "`\(object)` has no `\(name)`"
        case .missingMember(let name, nil): "has no `\(name)`"
        case .wrongType(let member, .text): "has no `\(member)` text"
        case .wrongType(let member, .object): "`\(member)` is no object"
        case .wrongType(let member, .array): "`\(member)` is no array"
        case .wrongType(let member, .number32): "`\(member)` is no 32-bit number"
        case .wrongType(let member, .listOfTexts): "`\(member)` holds something that is no text"
        case .unknownAlgorithm(let name):
            "`algorithm` is \"\(ByteString(name))\"; known are fsverity-sha256-12 and fsverity-sha512-12"
        case .unknownImageVersion: "`erofs_formats` names an image version that is not 0, 1 or 2"
        case .algorithmMismatch(let recorded, let found): "it says \(recorded.name), but the objects' names are \(found.name) digests"
        case .missingNewline: "the last byte is missing, a newline"
        case .damagedKey(let key, let object, let meant):
            (object.map { "`\($0)`" } ?? "the file") + " holds the key \"\(ByteString(key))\", which seems to be a damaged \"\(meant)\""
        case .versionZero: "format version 0 was never written"
        case .unknownReadOnlyFeature(let name): "the read-only-compatible feature \"\(ByteString(name))\" is unknown to this release"
        case .contradictoryFormats(let feature):
            "`erofs_formats.default` is 0, but `features.read-only-compatible` lists \(feature), which is for 1"
        }
    }
}

/// Why a file is not the object that its name states.
public enum ObjectFault: Sendable, Hashable, CustomStringConvertible {
    /// The content's fs-verity digest is another one.
    case digest(ObjectID)
    case noVerity
    case notRegularFile
    case symbolicLink
    /// The kernel measures another digest for what was just written.
    case readBackDiffers
    /// The kernel measures another digest for a copy of the object.
    case copyDiffers
    /// Other processes create and remove it all the time.
    case unstable
    /// Another process stored the object, and its content is lost since a failed sync.
    case lost

    public var description: String {
        switch self {
        case .digest(let actual): "its content has the digest \(actual)"
        case .noVerity: "it has no fs-verity"
        case .notRegularFile: "is no regular file"
        case .symbolicLink: "is a symbolic link"
        case .readBackDiffers: "written, but the file system returns other content"
        case .copyDiffers: "a copy of it has other content"
        case .unstable: "its name appears and vanishes while it is being stored"
        case .lost: "another program stored it, and the disk has lost it"
        }
    }
}

/// Why a stream cannot be read or written.
public enum StreamFault: Sendable, CustomStringConvertible {
    case format(SplitStreamError)
    /// A part of the stream was written to a file that this call does not have.
    case spilled
    /// Another error of the encoder.
    case encoder(any Error)

    public var description: String {
        switch self {
        case .format(let error): "\(error)"
        case .spilled: "a part of it was spilled elsewhere"
        case .encoder(let error): "\(error)"
        }
    }
}

/// Why an image cannot be used.
public enum ImageFault: Sendable, Hashable, CustomStringConvertible {
    case format(ErofsError)
    /// The reference leads to an entry of `images/` that does not exist.
    case danglingReference(entry: ByteString)
    case objectMissing(ObjectID)

    public var description: String {
        switch self {
        case .format(let error): "\(error)"
        case .danglingReference(let entry): "the reference leads to \(entry), which does not exist"
        case .objectMissing(let id): "its object \(id) is missing"
        }
    }
}

/// What a symbolic link in the repository is instead of what it should be.
public enum LinkFault: Sendable, Hashable, CustomStringConvertible {
    /// The target names no object; the repository's algorithm, if that matters.
    case notObject(target: ByteString, VerityAlgorithm?)
    /// The link's name is the ID of one object, and it leads to another.
    case otherObject(ObjectID)
    case notSymbolicLink
    /// Another file has the name of a reference.
    case notReference
    /// Another file has the name of a link that is to be removed.
    case notRemovable

    public var description: String {
        switch self {
        case .notObject(let target, let algorithm?): "leads to '\(target)', which is no \(algorithm.name) object"
        case .notObject(let target, nil): "leads to '\(target)', which is no object"
        case .otherObject(let id): "leads to another object, \(id)"
        case .notSymbolicLink: "is no symbolic link"
        case .notReference: "is no symbolic link, so it is no reference"
        case .notRemovable: "is no symbolic link, so it is not removed"
        }
    }
}

/// Why the objects that a reference keeps are unknown.
public enum RootFault: Sendable, CustomStringConvertible {
    /// A file of another type has the name of a directory of the repository.
    case notDirectory(FileKind)
    /// What the reference leads to cannot be read.
    case unreadable(RepositoryError)
    /// The image is in use and cannot be read.
    case imageInUse(RepositoryError, [ImageUse])
    /// The image cannot be read, and may be the image of one of these mounts.
    case imagePossiblyInUse(RepositoryError, [UnidentifiedMount])

    public var description: String {
        switch self {
        case .notDirectory(let kind): "is a \(Repository.name(of: kind)), not a directory"
        case .unreadable(let error): "\(error)"
        case .imageInUse(let error, let uses): "\(error); the image is \(uses.map(\.description).joined(separator: ", "))"
        case .imagePossiblyInUse(let error, let mounts):
            "\(error); the image is perhaps \(mounts.map(\.description).joined(separator: ", "))"
        }
    }
}

/// Why the image that a lease or a mount uses cannot be identified.
public enum UseFault: Sendable, CustomStringConvertible {
    /// A process holds the lease, and the lease names no image; nil if the process cannot be seen.
    case leaseWithoutImage(holder: ProcessIdentity?)
    case unreadableLease(SystemError)
    /// A mount shows the repository's objects, and the file of its image cannot be read.
    case unreadableSource(ByteString, any Error)
    /// The file of a mounted image, or of one that a process serves, cannot be read; its path.
    case unreadableImage(ImageUse, ByteString, any Error)

    public var description: String {
        switch self {
        case .leaseWithoutImage(let holder):
            "the lease is held by \(holder.map { "\($0)" } ?? "a process that is not visible here"), and does not name its image"
        case .unreadableLease(let error): "the lease cannot be read: \(error)"
        case .unreadableSource(let source, let error):
            "this mount shows the repository's objects, and its image, \(source), cannot be read: \(error)"
        case .unreadableImage(let use, let path, let error): "\(use): the image, \(path), cannot be read: \(error)"
        }
    }
}
