public import Bytes
import EROFS
import Hashing
import LinuxSystem
public import Mounting
import OCI
import Repository

extension Store {
    /// Mounts an image's root file system. The EROFS image is verified against its identifier first; in a secure repository the kernel
    /// verifies every file when it is opened. The mount is not bound to this process; `unmount` of module Mounting ends it.
    ///
    /// - Parameters:
    ///   - image: a tag, a digest or the first digits of one (`ImageStore.resolve`), an EROFS image's identifier, or its name below
    ///     `images/refs`.
    ///   - target: an existing directory.
    ///   - bootable: the image for booting instead of the container's.
    ///   - options: upper and work directory, owner map; their `source` is replaced by the image's identifier.
    /// - Throws: `ImageStoreError` where there is no such image, `RepositoryError` where it is damaged, `MountError` where the kernel or
    ///   the caller's rights do not suffice.
    public func mount(
        _ image: ByteString, at target: ByteString, bootable: Bool = false, _ options: MountOptions = MountOptions()
    ) throws {
        let opened = try repository.openImage(try mountable(image, bootable: bootable))
        let objects = try FileDescriptor.open(repository.path + "/objects", [.readOnly, .directory])
        var options = options
        options.source = MountOptions.source(ofImage: ByteString(opened.id.hex))
        try mountImage(opened.file, objects: objects, requireVerity: repository.isSecure, at: target, options: options)
    }

    /// The name in `images/` of what IMAGE means.
    private func mountable(_ image: ByteString, bootable: Bool) throws -> ByteString {
        if ObjectID(hex: image.bytes) != nil { return image }
        do {
            let found = try images.open(image)
            guard found.image.isContainer else { throw ImageStoreError.isArtifact(found.image.manifestDigest) }
            let version = repository.erofsFormats.default
            let id = bootable ? found.image.bootImageID(version) : found.image.imageID(version)
            guard let id else {
                throw ImageStoreError.damaged(
                    stream: ByteString(found.image.configDigest.description),
                    bootable
                        ? "records no EROFS image of format \(version) for booting"
                        : "has no EROFS image of format \(version); `cfsoci upgrade` or another pull makes it")
            }
            return ByteString(id.hex)
        } catch let error as ImageStoreError {
            // Images that were made from a directory have only a name below images/refs.
            guard case .noSuchImage = error, (try? repository.image(image)) != nil else { throw error }
            return image
        }
    }
}
