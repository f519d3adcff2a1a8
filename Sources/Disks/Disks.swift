// Disks: what a virtual machine boots a stored image from, as files outside of the repository.
//
// - `ImageDisks` makes one of an image: EROFS images of its layers, merged EROFS images, a VMDK, an ext4 root file system (`DiskKind`).
// - `makeUpperDisk` and `growDisk` are for the writable ext4 disk of a virtual machine.
// - `ObjectCopy` copies objects to their places: each is verified, and shared with the image if the file system can.
//
// The formats are pure and in EROFS and Ext4. An output has its name only when it is complete and durable.

public import ComposefsBytes
public import ComposefsHashing
public import ComposefsImageStore

/// What is made of an image.
public enum DiskKind: String, Sendable, Hashable, Codable, CaseIterable {
    /// A directory of EROFS images, one for each layer, for a stack of overlayfs. They are also the devices of `fsmeta`.
    case layered
    /// One EROFS image of the merged tree without contents, which addresses the images of `layered` as its devices.
    case fsmeta
    /// A directory with a VMDK: one disk of the merged tree and the images of the layers.
    case vmdk
    /// One EROFS image of the merged tree with its contents.
    case single
    /// One ext4 file system.
    case flat

    /// Whether the output is a directory.
    public var isDirectory: Bool { self == .layered || self == .vmdk }
    /// Whether the merged tree suffices. Other kinds need what each layer adds.
    package var isOfMergedTree: Bool { self == .single || self == .flat }
}

/// The tree that a disk shows.
public enum DiskTree: String, Sendable, Hashable, Codable, CaseIterable {
    /// The merged tree of the layers, with all extended attributes, and with the metadata of the root and the content of `/run` as the layers
    /// have them.
    case oci
    /// Exactly the tree of the composefs image.
    case composefs
}

/// A file that was made.
public struct DiskFile: Sendable, Hashable, Codable {
    public var path: ByteString
    /// In bytes.
    public var size: UInt64
    /// The layer that the file holds.
    public var diffID: ContentDigest?

    package init(path: ByteString, size: UInt64, diffID: ContentDigest? = nil) {
        self.path = path
        self.size = size
        self.diffID = diffID
    }
}

/// What was made of an image.
public struct DiskReport: Sendable, Hashable, Codable {
    public var kind: DiskKind
    public var tree: DiskTree
    public var manifestDigest: ContentDigest
    /// The file or directory.
    public var path: ByteString
    /// In the order of the disk: the merged image, then the layers from bottom to top; a descriptor first.
    public var files: [DiskFile]
    /// What overlayfs cannot show of a stack.
    public var exceptions: StackExceptions
}

/// What the making of a disk refuses.
public enum DiskError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The output exists, and is not a regular file that could be replaced.
    case notRegularFile(ByteString)
    /// The output is a directory with entries, or not a directory.
    case notEmptyDirectory(ByteString)
    /// The output exists and may hold data.
    case exists(ByteString)
    /// The last name of the path is none that a file can have.
    case invalidPath(ByteString)
    /// Another process changes the file.
    case busy(ByteString)
    /// A layer's stream gives an object another size than it has. Both are in bytes.
    case objectSize(ObjectID, found: UInt64, expected: UInt64)
    /// A layered disk has the trees of the layers, so it cannot have that of the composefs image.
    case layersHaveOwnTrees
    /// A size was given for a kind that has none.
    case sizeNotApplicable(DiskKind)
    /// The file system has less free space than the data of a disk's file, of which nothing was written: the file, the directory or the repository, and
    /// sizes in bytes.
    case noSpace(ByteString, needed: UInt64, free: UInt64)
    /// The stream of a disk that the store keeps is not that of such a disk.
    case keptDisk(ByteString, KeptDiskFault)

    public var description: String {
        switch self {
        case .notRegularFile(let path): "\(path): exists and is not a regular file"
        case .notEmptyDirectory(let path): "\(path): exists and is not an empty directory"
        case .exists(let path): "\(path): exists already"
        case .invalidPath(let path): "\"\(path)\" does not name a file"
        case .busy(let path): "\(path): another process changes it"
        case .objectSize(let id, let found, let expected): "object \(id.hex) has \(found) bytes, its layer says \(expected)"
        case .layersHaveOwnTrees: "the images of layers have the trees of the layers, not that of the composefs image"
        case .sizeNotApplicable(let kind): "a disk of kind \(kind.rawValue) has the size of its content"
        case .noSpace(let path, let needed, let free):
            "\(path): the disk needs at least \(humanBytes(needed)); \(humanBytes(free)) are free"
        case .keptDisk(let stream, let fault): "\(stream): \(fault)"
        }
    }
}

/// Why a stream is not that of a kept disk.
public enum KeptDiskFault: Sendable, Hashable, CustomStringConvertible {
    /// It has other objects or bytes than a disk of its kind.
    case unexpectedContent
    /// What a stack cannot show of the image has more bytes than the stream of a kept disk may have.
    case exceptions(bytes: Int)
    /// Its files have another size than it says. Both are in bytes.
    case size(found: UInt64, expected: UInt64)

    public var description: String {
        switch self {
        case .unexpectedContent: "does not have the files of such a disk"
        case .exceptions(let bytes): "what overlayfs cannot show has \(bytes) bytes, the limit is \(KeptDisk.exceptionLimit)"
        case .size(let found, let expected): "its files have \(found) bytes, the stream says \(expected)"
        }
    }
}
