public import ComposefsBytes
public import ComposefsHashing
internal import ComposefsLinuxSystem

/// Mounts an image file outside of a repository, with objects from any directories, as `mount.composefs` does.
///
/// - Parameters:
///   - path: the image file, or a block device with an image.
///   - objects: the directories of objects, at least one.
///   - digest: the fs-verity digest that the image must have; nil trusts the image. The kernel measures the file that is mounted; only if
///     `verity` is `.none`, the file is read and its digest computed in this process.
///   - verity: whether the kernel verifies each file.
///   - target: an existing directory.
///   - options: upper and work directory, owner map, attributes.
/// - Returns: whether the kernel verifies each file.
/// - Throws: `MountError`.
@discardableResult
public func mountImageFile(
    _ path: ByteString, objects: [ByteString], digest: ObjectID? = nil, verity: VerityChecking, at target: ByteString,
    _ options: MountOptions = MountOptions()
) throws(MountError) -> Bool {
    guard let first = objects.first else { throw .options(.noObjects) }
    // Held from before the image is opened until the kernel's mount table shows the mount, so that no garbage collection runs in between.
    let locks = repositoryLocks(objects)
    defer { withExtendedLifetime(locks) {} }
    let image = try open(path, [.readOnly, .nonBlocking])
    // Reading other kinds of files may block forever.
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

/// The shared locks of the repositories of these object directories. A directory outside of a repository has no lock.
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

/// The digest that the kernel measures; nil if the file has no fs-verity.
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
            var parts = FileParts(into: buffer)
            while let part = try parts.next(of: file) { hasher.update(part) }
        } catch {
            failure = error
        }
    }
    if let failure { throw failure }
    return hasher.finalize()
}
