import ComposefsBytes
import ComposefsConcurrency
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository

/// A file of a disk that is complete.
struct MadeFile {
    /// The name in a directory; empty for a disk of one file.
    var name: ByteString
    /// In bytes.
    var size: UInt64
    /// The layer that the file holds.
    var diffID: ContentDigest?
    /// Set if the file is an object, or would be one.
    var object: ObjectID?
}

/// Where the files of a disk are made.
protocol DiskSink {
    /// Begins a file. Objects are copied into it by other threads.
    ///
    /// - Parameter proofs: of objects that need not be hashed.
    func begin(_ file: MadeFile, _ content: DiskContent, _ proofs: ObjectProofs?) throws -> any FileInMaking
    /// Where the files take space; nil if nothing is written.
    func space() throws -> DiskSpace?
    /// Whether objects may be verified before they are copied.
    var verifiesAhead: Bool { get }
    /// The image of a layer, if there is one already.
    ///
    /// - Parameter index: that of the layer, from the lowest on.
    func existingLayer(_ index: Int) throws -> MadeFile?
    /// How a descriptor beside a file names it.
    func extentName(of file: MadeFile) -> ByteString
}

extension DiskSink {
    var verifiesAhead: Bool { true }
    func existingLayer(_ index: Int) throws -> MadeFile? { nil }
    func extentName(of file: MadeFile) -> ByteString { file.name }
}

/// A file of a disk into which objects are copied. One that is dropped before `finish` ends the copy.
protocol FileInMaking: AnyObject {
    /// Waits for the end.
    func finish() throws -> MadeFile
}

// MARK: Files and directories

/// One file, which the caller has opened.
final class FileSink: DiskSink {
    private let file: FileDescriptor
    private let path: ByteString
    private let repository: Repository

    /// - Parameter path: that of the output, for messages.
    init(_ file: borrowing FileDescriptor, _ path: ByteString, _ repository: Repository) throws(SystemError) {
        self.file = try file.duplicate()
        self.path = path
        self.repository = repository
    }

    func begin(_ made: MadeFile, _ content: DiskContent, _ proofs: ObjectProofs?) throws -> any FileInMaking {
        CopiedFile(made, try content.start(into: file, from: repository, proofs, Cancellation()))
    }

    func space() throws -> DiskSpace? { DiskSpace(path: path, status: try file.fileSystemStatus()) }
}

/// The files of a new directory.
struct DirectorySink: DiskSink {
    let directory: NewDirectory
    /// That of the output, for messages.
    let path: ByteString
    let repository: Repository

    func space() throws -> DiskSpace? { DiskSpace(path: path, status: try directory.fileSystemStatus()) }

    func begin(_ made: MadeFile, _ content: DiskContent, _ proofs: ObjectProofs?) throws -> any FileInMaking {
        let file = try directory.makeFile(made.name)
        return CopiedFile(made, try content.start(into: file.file, from: repository, proofs, Cancellation()))
    }
}

private final class CopiedFile: FileInMaking {
    private let made: MadeFile
    private let copy: ObjectCopy.Running

    init(_ made: MadeFile, _ copy: ObjectCopy.Running) {
        self.made = made
        self.copy = copy
    }

    func finish() throws -> MadeFile {
        try copy.finish()
        return made
    }
}

// MARK: Objects

/// Objects of the repository.
struct ObjectSink: DiskSink {
    let repository: Repository
    /// The images of layers that the repository has, by the layers' indexes.
    let existing: [Int: MadeFile]
    /// Objects that need not be hashed again, or not even read.
    let stored: StoredObjects?
    let cancellation: Cancellation

    func begin(_ made: MadeFile, _ content: DiskContent, _ proofs: ObjectProofs?) throws -> any FileInMaking {
        let file = try repository.makeObjectFile()
        // With fs-verity the kernel computes the digest.
        let hashes =
            repository.isSecure
            ? nil : BlockHashes(repository.algorithm, byteCount: content.byteCount, parts: content.parts, in: repository.memory)
        let copy = try file.withFile { try content.start(into: $0, from: repository, nil, hashes: hashes, stored: stored, cancellation) }
        return StoredFile(made, file, copy, hashes)
    }

    func space() throws -> DiskSpace? { DiskSpace(path: repository.path, status: try repository.fileSystemStatus()) }

    var verifiesAhead: Bool { false }

    func existingLayer(_ index: Int) -> MadeFile? { existing[index] }
    func extentName(of file: MadeFile) -> ByteString { Self.extentName(of: file) }

    /// A descriptor is an object, too, and its machine resolves names relative to the directory of that.
    static func extentName(of file: MadeFile) -> ByteString {
        guard let object = file.object else { preconditionFailure("a file of the store is an object") }
        return "../" + ByteString(object.objectPath)
    }
}

private final class StoredFile: FileInMaking {
    private var made: MadeFile
    private let file: ObjectFile
    private var copy: ObjectCopy.Running?
    private let hashes: BlockHashes?

    init(_ made: MadeFile, _ file: ObjectFile, _ copy: ObjectCopy.Running, _ hashes: BlockHashes?) {
        self.made = made
        self.file = file
        self.copy = copy
        self.hashes = hashes
    }

    func finish() throws -> MadeFile {
        try copy?.finish()
        // Also closes its descriptor of the file.
        copy = nil
        let id = try hashes.map { hashes in try file.withFile { try hashes.identifier(of: $0) } }
        let object = try file.finish(id)
        made.object = object.id
        return made
    }
}

/// No files, only the objects that they would be.
struct IdentifierSink: DiskSink {
    let repository: Repository

    func begin(_ made: MadeFile, _ content: DiskContent, _ proofs: ObjectProofs?) throws -> any FileInMaking {
        var made = made
        made.object = try content.identifier(in: repository)
        return Identified(made)
    }

    func space() -> DiskSpace? { nil }
    var verifiesAhead: Bool { false }
    func extentName(of file: MadeFile) -> ByteString { ObjectSink.extentName(of: file) }

    private final class Identified: FileInMaking {
        private let made: MadeFile

        init(_ made: MadeFile) { self.made = made }

        func finish() -> MadeFile { made }
    }
}
