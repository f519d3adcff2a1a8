public import ComposefsBootFormats
public import ComposefsBytes
import ComposefsEROFS
import ComposefsFileTree
public import ComposefsHashing
public import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsRepository

/// How an image is prepared for booting.
public struct BootPreparation: Sendable {
    /// What of the image is booted: the name or path of an entry, a unified kernel image or a kernel. Nil takes the newest of the first kind
    /// that the image has: entries, unified kernel images, kernels of `/usr/lib/modules`, kernels of `/boot`.
    public var resource: ByteString?
    /// The name of the entry; nil makes one that is newer than all others.
    public var entry: ByteString?
    /// The directory of the boot partition for kernels and initial RAM disks.
    public var subdirectory: ByteString = "composefs"
    /// Kernel arguments. Those that the image's entry has under the same keys are replaced.
    public var arguments = KernelCommandLine([])
    public var filtering: XattrFiltering = .allowlistOnly
    /// How often the entry is tried before the boot loader takes the next one; nil does not count.
    public var attempts: Int?
    /// Whether the local changes to `/etc` are carried over.
    public var mergesEtc = true
    /// Whether the deployment gets a `/var` of its own, instead of the one that is shared.
    public var hasOwnVar = false

    public init() {}
}

/// An image that was prepared for booting.
public struct PreparedBoot: Sendable {
    public var id: ObjectID
    public var entry: BootEntry
    /// Whether the entry is booted next, as far as files of the boot partition tell.
    public var isNext: Bool
    public var filesWritten: Int
    /// In bytes.
    public var bytesWritten: UInt64
    /// Files that other entries share.
    public var filesShared: Int
    public var etc: EtcOutcome
    public var `var`: VarOutcome
    /// Entries for the same image that the new one replaces.
    public var replaced: [ByteString]
    /// The number of addons for all unified kernel images in the image. They are not written: they would change other entries too.
    public var globalAddons: Int
}

extension ImageStore {
    /// Puts what boots an image on a boot partition, and makes its deployment. A power cut at any point leaves the entries that there were, or
    /// the new one complete.
    ///
    /// The image for booting is recorded with the image if it is not yet.
    ///
    /// - Parameter image: a tag, a digest or the beginning of one, or the name of an image that was made with the transform for booting.
    /// - Throws: `BootError`; as `generateBootImage`; `SystemError`, `RepositoryError`.
    public func prepareBoot(
        _ image: ByteString, on partition: BootPartition, in deployments: Deployments, _ options: BootPreparation = BootPreparation()
    ) throws -> PreparedBoot {
        let target = try BootTarget(image, self)
        let resources = try bootResources(in: target.tree)
        let chosen = try Self.choose(options.resource, resources)
        if let key = chosen.entry.flatMap({ entry in ["devicetree-overlay", "uki", "uki-url"].first { entry.has($0) } }) {
            throw BootError.unsupportedKey(chosen.path, key: key)
        }
        if let entry = options.entry, !Self.isName(entry) { throw BootError.invalidName(entry) }
        for name in options.subdirectory.bytes.split(separator: UInt8(ascii: "/")) where !Self.isName(ByteString(name)) {
            throw BootError.invalidName(options.subdirectory)
        }
        let writer = BootWriter(partition, deployments, chosen, resources, options, repository)
        return try partition.withLock {
            let files = try writer.plan()
            try partition.requireSpace(for: files)
            let boot = try target.bootImage(for: chosen, options.filtering, self)
            return try deployments.withLock { try writer.write(files, boot, target, self) }
        }
    }

    private static func isName(_ name: ByteString) -> Bool {
        (1...200).contains(name.count) && name.bytes.first != UInt8(ascii: ".")
            && name.bytes.allSatisfy { byte in
                (0x30...0x39).contains(byte) || (0x41...0x5a).contains(byte) || (0x61...0x7a).contains(byte) || "._-".utf8.contains(byte)
            }
    }

    /// The resource of a name or path; without one, the newest of the first kind that there is.
    static func choose(
        _ name: ByteString?, _ resources: [BootResource], kinds: [BootResource.Kind] = BootResource.Kind.allCases
    ) throws(BootError) -> BootResource {
        let bootable = resources.filter {
            $0.kind.isBootable && kinds.contains($0.kind) && (name == nil || $0.name == name || $0.path == name)
        }
        for kind in kinds {
            let intact = bootable.filter { $0.kind == kind && $0.fault == nil }
            // The last of those with the same version.
            if let newest = intact.reversed().min(by: { compareVersions($0.version ?? "", $1.version ?? "") > 0 }) { return newest }
        }
        if let damaged = bootable.first, let fault = damaged.fault { throw .resource(damaged.path, fault) }
        if let name { throw .noSuchResource(name) }
        throw .nothingToBoot
    }
}

/// The image that is prepared.
struct BootTarget {
    var name: ByteString
    /// Nil for an image that was made from a directory.
    var stored: StoredImage?
    var namedID: ObjectID?
    var tree: FileTree

    init(_ text: ByteString, _ images: ImageStore) throws {
        do {
            let (name, image) = try images.open(text)
            guard image.isContainer else { throw ImageStoreError.isArtifact(image.manifestDigest) }
            self.name = name.isEmpty ? text : name
            stored = image
            tree = try images.tree(of: image)
        } catch let error as ImageStoreError {
            guard case .noSuchImage = error, let found = try images.namedImage(text) else { throw error }
            name = text
            namedID = found.imageID
            tree = try images.erofsImage(found.imageID).tree()
        }
    }

    /// The image for booting, which is made if it is missing. A unified kernel image names it.
    func bootImage(for resource: BootResource, _ filtering: XattrFiltering, _ images: ImageStore) throws -> BootImage {
        guard let stored else {
            guard let namedID else { preconditionFailure("an image has a manifest or a name") }
            let image = BootImage(id: namedID, version: try images.erofsImage(namedID).version, filtering: filtering)
            if resource.kind == .unified { try check(resource, [namedID], images.repository) }
            return image
        }
        guard resource.kind == .unified else { return try images.generateBootImage(stored.manifestDigest, filtering) }
        let named = try Self.imagesNamed(by: resource)
        let known = try images.image(stored.manifestDigest)?.bootImages.map(\.id) ?? []
        for id in named where id.algorithm == images.repository.algorithm {
            do {
                let found = try images.findMatchingBootImage(stored.manifestDigest, id)
                try check(resource, [id], images.repository)
                return found
            } catch is NoMatchingBootImage {
                continue
            }
        }
        let expected = known.isEmpty ? [try images.computedBootImage(of: stored, filtering)] : known
        throw BootError.unifiedNamesOther(resource.path, found: named, expected: expected)
    }

    private static func imagesNamed(by resource: BootResource) throws -> [ObjectID] {
        let named = try resource.options?.composefsArguments().map(\.id) ?? []
        guard !named.isEmpty else { throw BootError.unifiedWithoutImage(resource.path) }
        return named
    }

    private func check(_ resource: BootResource, _ ids: [ObjectID], _ repository: Repository) throws {
        let arguments = try resource.options?.composefsArguments() ?? []
        guard !arguments.isEmpty else { throw BootError.unifiedWithoutImage(resource.path) }
        guard let own = arguments.first(where: { ids.contains($0.id) }) else {
            throw BootError.unifiedNamesOther(resource.path, found: arguments.map(\.id), expected: ids)
        }
        guard repository.isSecure || own.allowsInsecure else { throw BootError.unifiedDemandsVerity(resource.path) }
    }
}

extension ImageStore {
    /// The ID of an image for booting in the default format, which is not stored.
    func computedBootImage(of image: StoredImage, _ filtering: XattrFiltering) throws -> ObjectID {
        try imageID(of: try bootTree(of: image, filtering), repository.erofsFormats.default)
    }
}
