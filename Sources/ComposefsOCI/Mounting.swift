public import ComposefsBytes
import ComposefsEROFS
public import ComposefsHashing
import ComposefsImageStore
import ComposefsLinuxSystem
public import ComposefsMounting
import ComposefsRepository

extension Store {
    /// Mounts an image's root file system. The EROFS image is verified against its identifier first; in a secure repository that is the
    /// kernel's digest of the very file that is mounted, and the kernel verifies every other file when it is opened. The mount is not bound
    /// to this process; `unmount` of module Mounting ends it.
    ///
    /// - Parameters:
    ///   - image: a tag, a digest or the first digits of one (`ImageStore.resolve`), an EROFS image's identifier, or its name below
    ///     `images/refs`. With `@` and an identifier behind it, what is found must have that identifier.
    ///   - target: an existing directory.
    ///   - bootable: the image for booting instead of the container's.
    ///   - digest: the identifier that the EROFS image must have.
    ///   - options: upper and work directory, owner map; their `source` is replaced by the image's identifier unless it was changed.
    /// - Returns: the EROFS image's identifier.
    /// - Throws: `ImageStoreError` where there is no such image or it is another one, `RepositoryError` where it is damaged, `MountError`
    ///   where the kernel or the caller's rights do not suffice.
    @discardableResult
    public func mount(
        _ image: ByteString, at target: ByteString, bootable: Bool = false, digest: ObjectID? = nil,
        _ options: MountOptions = MountOptions()
    ) throws -> ObjectID {
        let opened = try openMountable(image, bootable: bootable, digest: digest)
        let objects = try repository.openObjectsDirectory()
        var options = options
        if options.source == MountOptions().source { options.source = MountOptions.source(ofImage: ByteString(opened.id.hex)) }
        try mountImage(opened.file, objects: objects, verity: repository.isSecure ? .required : .none, at: target, options: options)
        // Without it a collection finds the mount, and not its image, and stops: no reason to have no mount.
        if options.source != MountOptions.source(ofImage: ByteString(opened.id.hex)) {
            try? repository.leaseMount(of: opened.id, at: target)
        }
        return opened.id
    }

    /// The EROFS image that IMAGE means, open and verified; see `mount`.
    public func openMountable(_ image: ByteString, bootable: Bool = false, digest: ObjectID? = nil) throws -> OpenedImage {
        let (image, id, wanted) = try mountable(image, bootable: bootable)
        let opened = try repository.openImage(id)
        for wanted in [wanted, digest] {
            guard let wanted, wanted != opened.id else { continue }
            throw ImageStoreError.otherImage(image, found: opened.id.hex, wanted: wanted.hex)
        }
        return opened
    }

    /// IMAGE, its name in `images/`, and the identifier that stands behind an `@`, unless something is called so as a whole.
    private func mountable(_ image: ByteString, bootable: Bool) throws -> (image: ByteString, name: ByteString, wanted: ObjectID?) {
        do {
            return (image, try imageName(image, bootable: bootable), nil)
        } catch let error as ImageStoreError {
            guard case .noSuchImage = error, let at = image.bytes.lastIndex(of: UInt8(ascii: "@")), at > 0,
                let wanted = ObjectID(hex: image.bytes[(at + 1)...])
            else { throw error }
            let name = ByteString(Array(image.bytes[..<at]))
            return (name, try imageName(name, bootable: bootable), wanted)
        }
    }

    /// The name in `images/` of what IMAGE means.
    private func imageName(_ image: ByteString, bootable: Bool) throws -> ByteString {
        if ObjectID(hex: image.bytes) != nil { return image }
        do {
            let found = try images.open(image)
            guard found.image.isContainer else { throw ImageStoreError.isArtifact(found.image.manifestDigest) }
            let version = repository.erofsFormats.default
            let id = bootable ? found.image.bootImageID(version) : found.image.imageID(version)
            guard let id else {
                throw ImageStoreError.noErofsImage(config: found.image.configDigest, version, bootable: bootable)
            }
            return ByteString(id.hex)
        } catch let error as ImageStoreError {
            // Images that were made from a directory have only a name below images/refs. Damage behind it is reported when it is opened.
            guard case .noSuchImage = error, try (try? repository.image(image)) != nil || images.hasName(image) else { throw error }
            return image
        }
    }
}

/// Mounts an image that is a file by itself, with objects from anywhere: what `mount.composefs` does.
///
/// - Parameters:
///   - path: the image's file, or a block device that holds one.
///   - objects: directories of objects, at least one.
///   - digest: what the image's fs-verity digest must be; nil trusts the image. The kernel is asked for it, of the very file that is
///     mounted; only with `verity` `.none` is the file read and its digest computed here.
///   - verity: whether the kernel checks each file.
///   - target: an existing directory.
///   - options: upper and work directory, owner map, attributes.
/// - Returns: whether the kernel checks each file.
/// - Throws: `MountError`.
@discardableResult
public func mountImageFile(
    _ path: ByteString, objects: [ByteString], digest: ObjectID? = nil, verity: VerityChecking, at target: ByteString,
    _ options: MountOptions = MountOptions()
) throws(MountError) -> Bool {
    guard let first = objects.first else { throw .options(.noObjects) }
    // Before the image is looked for, and until the kernel's table shows the mount: no collection comes in between.
    let locks = repositoryLocks(objects)
    defer { withExtendedLifetime(locks) {} }
    let image = try open(path, [.readOnly, .nonBlocking])
    // Of others a read may never end.
    guard let kind = try? image.status().kind, kind == .regular || kind == .blockDevice else { throw .noImageFile(path) }
    let directory = try open(first, [.readOnly, .directory])
    if let digest {
        let found: ObjectID?
        do throws(SystemError) {
            found = verity == .none ? try computedDigest(image, digest.algorithm) : try measuredDigest(image)
        } catch {
            throw .system(error)
        }
        guard let found else { throw .imageWithoutVerity(path) }
        guard found == digest else { throw .otherImage(path, found: found.hex, wanted: digest.hex) }
    }
    var options = options
    options.moreObjects = Array(objects.dropFirst()) + options.moreObjects
    do throws(MountError) {
        return try mountImage(image, objects: directory, verity: verity, at: target, options: options)
    } catch {
        guard case .image(let system, let kernel) = error else { throw error }
        throw .image(SystemError("mount EROFS of", path, system.errno), kernel: kernel)
    }
}

/// The shared locks of the repositories whose objects these are. A directory of objects that is in no repository has none.
private func repositoryLocks(_ objects: [ByteString]) -> [OpenFile] {
    objects.compactMap { path in
        guard let directory = try? FileDescriptor.open(path + "/..", [.readOnly, .directory]),
            (try? directory.status(at: "meta.json", follow: false))?.kind == .regular, (try? directory.lock(.shared)) == true
        else { return nil }
        return try? OpenFile(directory)
    }
}

private func open(_ path: ByteString, _ flags: OpenFlags) throws(MountError) -> FileDescriptor {
    do throws(SystemError) {
        return try FileDescriptor.open(path, flags)
    } catch {
        throw .system(error)
    }
}

/// Asked of the kernel; nil where there is none.
private func measuredDigest(_ file: borrowing FileDescriptor) throws(SystemError) -> ObjectID? {
    do throws(SystemError) {
        guard let measured = try file.measureVerity(), let algorithm = VerityAlgorithm(rawValue: measured.algorithm) else { return nil }
        return ObjectID(algorithm: algorithm, bytes: measured.digest)
    } catch {
        guard error.isUnsupported else { throw error }
        return nil
    }
}

private func computedDigest(_ file: borrowing FileDescriptor, _ algorithm: VerityAlgorithm) throws(SystemError) -> ObjectID {
    var hasher = VerityHasher(algorithm)
    var failure: SystemError?
    withUnsafeTemporaryAllocation(byteCount: 1 << 16, alignment: 16) { buffer in
        do throws(SystemError) {
            var offset: UInt64 = 0
            while case let count = try file.pread(into: buffer, at: offset), count > 0 {
                hasher.update(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
                offset += UInt64(count)
            }
        } catch {
            failure = error
        }
    }
    if let failure { throw failure }
    return hasher.finalize()
}
