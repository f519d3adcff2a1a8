public import ComposefsBytes
public import ComposefsEROFS
public import ComposefsHashing
import ComposefsLinuxSystem
public import ComposefsRepository

/// An EROFS image with a name of its own below `images/refs`: made from a directory, it has no manifest, config or layers.
public struct NamedImage: Sendable, Hashable {
    /// Relative to `images/refs`.
    public var name: ByteString
    public var imageID: ObjectID
}

/// A name below `images/refs` whose image cannot be mounted.
public struct BrokenImageName: Sendable, Hashable {
    public var name: ByteString
    /// One line that says what is wrong.
    public var reason: String
}

extension ImageStore {
    /// All names below `images/refs`, in ascending order, with the images that they refer to. Broken names are listed separately.
    public func namedImages() throws -> (images: [NamedImage], broken: [BrokenImageName]) {
        var images: [NamedImage] = []
        var broken: [BrokenImageName] = []
        for reference in try repository.imageReferences() {
            do throws(RepositoryError) {
                let id = try repository.image(named: reference)
                guard try repository.objectSize(id) != nil else { throw .objectMissing(id) }
                images.append(NamedImage(name: reference.name, imageID: id))
            } catch {
                broken.append(BrokenImageName(name: reference.name, reason: "\(error)"))
            }
        }
        return (images, broken)
    }

    /// The image of a name below `images/refs`; nil if there is no such name.
    ///
    /// - Throws: `RepositoryError` if the name is broken.
    public func namedImage(_ name: ByteString) throws(RepositoryError) -> NamedImage? {
        guard Repository.isReferenceName(name), let reference = try repository.imageReference(name) else { return nil }
        return NamedImage(name: name, imageID: try repository.image(named: reference))
    }

    /// An EROFS image's size in bytes and its format, completely verified and checked.
    public func erofsImage(_ id: ObjectID) throws -> ErofsImage {
        Misbehaviour.act(at: .image)
        return try ErofsImage(try repository.readObject(id, limit: Repository.imageLimit), algorithm: repository.algorithm)
    }

    /// Gives a stored EROFS image a name below `images/refs`, durably. A name that is in use moves to the image.
    public func name(_ id: ObjectID, as name: ByteString) throws(RepositoryError) {
        guard try repository.objectSize(id) != nil else { throw .objectMissing(id) }
        var publication = Repository.Publication()
        publication.imageReference(name, id)
        try repository.publish(publication)
    }

    /// Removes a name below `images/refs`, durably, even if it is broken. What it kept stays until garbage is collected.
    ///
    /// - Parameter force: also the last name of an image that is in use.
    /// - Returns: false if there is no such name.
    /// - Throws: `ImageStoreError.imageInUse`, `RepositoryError`.
    public func removeName(_ name: ByteString, force: Bool = false) throws -> Bool {
        guard try hasName(name) else { return false }
        if !force { try requireUnused([name]) }
        return try repository.removeImageReference(name)
    }

    /// Whether there is such a name below `images/refs`, even if it is broken.
    public func hasName(_ name: ByteString) throws(RepositoryError) -> Bool {
        guard Repository.isReferenceName(name) else { return false }
        return try repository.imageReference(name) != nil
    }

    /// All names below `images/refs` that refer to this image, whether or not its object exists.
    public func names(of id: ObjectID) throws(RepositoryError) -> [ByteString] {
        try repository.imageReferences().filter { ObjectID(hex: $0.entry.bytes) == id }.map(\.name)
    }
}
