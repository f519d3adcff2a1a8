import ComposefsBoot
public import ComposefsBytes
import ComposefsEROFS
public import ComposefsHashing
import ComposefsImageStore
import ComposefsLinuxSystem
public import ComposefsMounting
import ComposefsRepository

extension Store {
    /// Mounts an image's root file system. The mount outlives this process; `unmount` of module Mounting ends it.
    ///
    /// The EROFS image is verified against its image ID first. In a secure repository, the kernel measures the file that is mounted, and
    /// verifies every other file when it is opened.
    ///
    /// - Parameters:
    ///   - image: a tag, a digest or the beginning of one (see `ImageStore.resolve`), an image ID, or a name in `images/refs`. `@` and an
    ///     image ID may follow; the image must have that ID then.
    ///   - target: an existing directory.
    ///   - bootable: whether to mount the boot image instead of the container image.
    ///   - digest: the image ID that the EROFS image must have.
    ///   - requiresSeal: whether the image must be sealed: the label of its config, and for booting an annotation of its manifest, must state
    ///     the actual digest. An EROFS image that is named by its ID has no config, and is refused then.
    ///   - options: upper and work directory, owner map, attributes. If `source` has its default value, it is replaced by the image ID.
    /// - Returns: the image ID.
    /// - Throws: `ImageStoreError` if there is no such image or it has another ID, `ImageStoreError.seal` if it lacks the required seal,
    ///   `RepositoryError` if it is damaged, `MountError` if the kernel does not support the mount or the caller may not mount.
    @discardableResult
    public func mount(
        _ image: some ByteStringConvertible, at target: some ByteStringConvertible, bootable: Bool = false, digest: ObjectID? = nil,
        requiresSeal: Bool = false, _ options: MountOptions = MountOptions()
    ) throws -> ObjectID {
        let (image, target) = (image.byteString, target.byteString)
        let opened = try openMountable(image, bootable: bootable, digest: digest, requiresSeal: requiresSeal)
        let objects = try repository.openObjectsDirectory()
        var options = options
        if options.source == MountOptions().source { options.source = MountOptions.source(ofImage: ByteString(opened.id.hex)) }
        try mountImage(opened.file, objects: objects, verity: repository.isSecure ? .required : .none, at: target, options: options)
        // Without it a collection finds the mount, and not its image, and stops: no reason to have no mount.
        if options.source != MountOptions.source(ofImage: ByteString(opened.id.hex)) {
            try? repository.leaseMount(of: opened.id, at: target)
        }
        noteUse(ofMountable: image, opened.id)
        return opened.id
    }

    /// Opens and verifies the EROFS image that `image` names. Parameters and errors are those of `mount`.
    public func openMountable(
        _ image: some ByteStringConvertible, bootable: Bool = false, digest: ObjectID? = nil, requiresSeal: Bool = false
    ) throws -> OpenedImage {
        Misbehaviour.act(at: .image)
        let (image, id, wanted) = try mountable(image.byteString, MountableForm(bootable: bootable, requiresSeal: requiresSeal))
        let opened = try repository.openImage(id)
        try require(wanted, of: image, found: opened.id)
        try require(digest, of: image, found: opened.id)
        return opened
    }

    private func require(_ wanted: ObjectID?, of image: ByteString, found: ObjectID) throws {
        guard let wanted, wanted != found else { return }
        throw ImageStoreError.otherImage(image, found: found.hex, wanted: wanted.hex)
    }

    /// Records that what a caller named was mounted.
    func noteUse(ofMountable image: ByteString, _ id: ObjectID) {
        // A name may end with an ID.
        var names = [image]
        if let at = image.bytes.lastIndex(of: UInt8(ascii: "@")), at > 0 { names.append(ByteString(Array(image.bytes[..<at]))) }
        for name in names where ObjectID(hex: name.bytes) == nil {
            if images.noteUse(named: name) { return }
        }
        images.noteUse(ofImage: id)
    }

    /// The name without `@ID`, the image's name in `images/`, and the ID. If an image has the whole text as its name, there is no ID.
    private func mountable(_ image: ByteString, _ form: MountableForm) throws -> (image: ByteString, name: ByteString, wanted: ObjectID?) {
        do {
            return (image, try imageName(image, form), nil)
        } catch let error as ImageStoreError {
            guard case .noSuchImage = error, let at = image.bytes.lastIndex(of: UInt8(ascii: "@")), at > 0,
                let wanted = ObjectID(hex: image.bytes[(at + 1)...])
            else { throw error }
            let name = ByteString(Array(image.bytes[..<at]))
            return (name, try imageName(name, form), wanted)
        }
    }

    /// The name in `images/` of the EROFS image that `image` names.
    private func imageName(_ image: ByteString, _ form: MountableForm) throws -> ByteString {
        if ObjectID(hex: image.bytes) != nil {
            guard !form.requiresSeal else { throw ImageStoreError.seal(.noConfig) }
            return image
        }
        do {
            let found = try images.open(image)
            guard found.image.isContainer else { throw ImageStoreError.isArtifact(found.image.manifestDigest) }
            if form.requiresSeal {
                let id = try form.bootable ? images.sealedBootImageID(of: found.image) : images.sealedImageID(of: found.image)
                return ByteString(id.hex)
            }
            let version = repository.erofsFormats.default
            let id = form.bootable ? found.image.bootImageID(version) : found.image.imageID(version)
            guard let id else {
                throw ImageStoreError.noErofsImage(config: found.image.configDigest, version, bootable: form.bootable)
            }
            return ByteString(id.hex)
        } catch let error as ImageStoreError {
            // Images that were created from a directory have only a name in images/refs. Damage is reported when the image is opened.
            guard case .noSuchImage = error, try (try? repository.image(image)) != nil || images.hasName(image) else { throw error }
            guard !form.requiresSeal else { throw ImageStoreError.seal(.noConfig) }
            return image
        }
    }
}

extension Store {
    /// Mounts an image's root file system without attaching it: for another process, which gets the descriptor and attaches it (move_mount(2)).
    ///
    /// Until it is attached, only this handle of the repository keeps collections from removing what the image needs. Parameters and errors are
    /// those of `mount`.
    public func mountDetached(
        _ image: some ByteStringConvertible, bootable: Bool = false, _ options: MountOptions = MountOptions()
    ) throws -> FileDescriptor {
        let image = image.byteString
        let opened = try openMountable(image, bootable: bootable)
        let id = opened.id
        let mount = try detached(opened, options)
        noteUse(ofMountable: image, id)
        return mount
    }

    /// The same for an image by its image ID, or its name in `images/refs`.
    public func mountDetached(named name: ByteString, _ options: MountOptions = MountOptions()) throws -> FileDescriptor {
        let opened = try repository.openImage(name)
        let id = opened.id
        let mount = try detached(opened, options)
        noteUse(ofMountable: name, id)
        return mount
    }

    /// The source names the image: once the mount is attached, a collection finds it in the kernel's table.
    private func detached(_ image: borrowing OpenedImage, _ options: MountOptions) throws -> FileDescriptor {
        var options = options
        options.source = MountOptions.source(ofImage: ByteString(image.id.hex))
        return try mountImageDetached(
            image.file, objects: try repository.openObjectsDirectory(), verity: repository.isSecure ? .required : .none, options: options)
    }
}

/// Which EROFS image of an image is mounted, and what it must be.
private struct MountableForm {
    var bootable: Bool
    var requiresSeal: Bool
}
