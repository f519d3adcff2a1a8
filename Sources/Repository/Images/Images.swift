public import ComposefsBytes
internal import ComposefsEROFS
public import ComposefsHashing
public import ComposefsLinuxSystem

/// An EROFS image that is open for reading.
public struct OpenedImage: ~Copyable {
    public let file: FileDescriptor
    public let id: ObjectID
    /// Whether the content was verified against the identifier.
    public let isVerified: Bool
}

extension Repository {
    /// The largest image that is read, in bytes: images are read as a whole.
    package static let imageLimit = ErofsImage.maximumSize

    /// Stores an image's object. `images/` is not changed, see `publish`.
    public func storeImage(_ bytes: [UInt8]) throws(RepositoryError) -> StoredObject {
        try withBytes(bytes) { (content) throws(RepositoryError) in try storeObject(content) }
    }

    /// The object that `images/<name>` leads to, or `images/refs/<name>` through it.
    public func image(_ name: ByteString) throws(RepositoryError) -> ObjectID {
        if !name.bytes.contains(UInt8(ascii: "/")), name != "refs", let id = try imageLink(name) { return id }
        guard let reference = try imageReference(name) else { throw .imageMissing(name) }
        return try image(named: reference)
    }

    /// The object that a reference leads to through `images/<id>`.
    package func image(named reference: Reference) throws(RepositoryError) -> ObjectID {
        guard let id = try imageLink(reference.entry) else {
            throw .image(reference.name, .danglingReference(entry: reference.entry))
        }
        return id
    }

    /// Whether a reference may have this name.
    package static func isReferenceName(_ name: ByteString) -> Bool { (try? Layout.checkReferenceName(name)) != nil }

    private func imageLink(_ name: ByteString) throws(RepositoryError) -> ObjectID? {
        try Layout.checkEntryName(name)
        let path = Layout.images + "/" + name
        guard let id = try linkedObject(path) else { return nil }
        // The image is verified against the name, so a link to another object is a fault.
        guard ObjectID(hex: name.bytes) == id else { throw .invalidLink(path, .otherObject(id)) }
        return id
    }

    /// Whether an image can be opened: `images/<id>` leads to an object that exists.
    package func hasImage(_ id: ObjectID) throws(RepositoryError) -> Bool {
        guard try imageLink(ByteString(id.hex)) == id else { return false }
        return try objectSize(id) != nil
    }

    /// Opens an image by its identifier or by a reference's name, and verifies its content against the identifier.
    ///
    /// - Parameter verify: if false, the content is not read in a repository without fs-verity; the kernel's digest is always compared.
    public func openImage(_ name: ByteString, verify: Bool = true) throws(RepositoryError) -> OpenedImage {
        let id = try image(name)
        let isVerified = isSecure || verify
        do throws(RepositoryError) {
            return OpenedImage(file: try openObject(id, verify: isVerified), id: id, isVerified: isVerified)
        } catch {
            guard case .objectMissing = error else { throw error }
            throw .image(name, .objectMissing(id))
        }
    }

    /// The identifiers of all images, in ascending order.
    public func imageIDs() throws(RepositoryError) -> [ObjectID] {
        (try entries(of: Layout.images) ?? []).compactMap { ObjectID(hex: $0.name.bytes) }
    }

    /// Whether an object begins like a composefs image. Others, such as a disk that is mounted, are not read as a whole. False if it is missing.
    package func beginsLikeImage(_ id: ObjectID) throws(RepositoryError) -> Bool {
        guard try objectSize(id) != nil else { return false }
        let file = try openObject(id, verify: false)
        return try withTemporaryBuffer { (buffer) throws(RepositoryError) in
            let head = UnsafeMutableRawBufferPointer(rebasing: buffer[..<4])
            let count = try system { () throws(SystemError) in try file.preadFully(into: head, at: 0) }
            return count == 4 && ErofsImage.isImage(beginningWith: Array(head))
        }
    }

    /// The objects that an image's files need, in ascending order and without duplicates.
    public func imageObjects(_ id: ObjectID) throws(RepositoryError) -> [ObjectID] {
        let bytes = try readObject(id, limit: Self.imageLimit)
        do {
            return try ErofsImage(bytes, algorithm: algorithm).objectReferences()
        } catch {
            throw .image(ByteString(id.hex), .format(error))
        }
    }
}
