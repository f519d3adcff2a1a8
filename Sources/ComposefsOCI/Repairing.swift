public import ComposefsBytes
public import ComposefsConcurrency
import ComposefsDisks
import ComposefsHashing
import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsOCIModel
public import ComposefsRegistry
import ComposefsRepository
public import ComposefsTransfer
import ComposefsTransports

/// Options of `Store.repair`.
public struct StoreRepairOptions: Sendable {
    /// Only this image, by a name or digest for `ImageStore.resolve`; nil for all.
    public var image: ByteString?
    /// Only report what a repair would do.
    public var isDryRun = false
    /// Remove dangling references.
    public var prunesDangling = false
    /// The source of damaged images: a reference for `Store.pull`, the directory of an OCI layout, or another repository. If nil, the source that
    /// was recorded when the image was pulled, or else the registry that its name states.
    public var from: ByteString?
    /// Credentials, TLS and timeouts for registries.
    public var registry = RegistryOptions()
    /// Ends the repair.
    public var cancellation = Cancellation()
    /// Receives events, from several threads. It must not block.
    public var observer: (@Sendable (StoreCheckEvent) -> Void)?

    public init() {}
}

/// An event of a running check or repair of a store.
public enum StoreCheckEvent: Sendable {
    /// The number of objects that were read, and of all that are to be read.
    case objects(done: Int, total: Int)
    /// All objects were read, and images are being checked.
    case images
    case repair(RepairEvent)
    /// The repair is complete, and the store is being checked again.
    case again
}

/// The result of a repair of a store.
public struct StoreRepairReport: Sendable {
    /// The findings of the check before the repair.
    public var before: StoreReport
    public var repair: RepairReport
    /// The findings of the check after the repair; nil if the repair changed nothing.
    public var after: StoreReport?

    /// Whether the store has no fault now, and all that was written for an image is on the device: an image that could not be stored may read well
    /// and be lost with the power. An image without a source has no fault if its reference was removed or mended.
    public var isClean: Bool { (after ?? before).isClean && repair.images.allSatisfy { $0.failure == nil || $0.failure is RepairError } }
}

extension Store {
    /// Checks the whole store, repairs damage, and checks again.
    ///
    /// Files with wrong names are set aside. Incomplete or damaged images are stored again, from their intact parts in the store and, for the
    /// rest, from their sources; only the missing layers are fetched. Each step is atomic and durable. The next repair continues an interrupted
    /// one. See `ImageStore.repair`. A store with a damaged `meta.json` cannot be opened; call `Repository.repairMetadata` first.
    ///
    /// - Throws: `RepositoryError` if the repository cannot be read or written to, `OCIError` if `from` is no source, `CancellationError` after a
    ///   cancellation. The report states why an image cannot be repaired.
    public func repair(_ options: StoreRepairOptions = StoreRepairOptions()) throws -> StoreRepairReport {
        try cancellable(options.cancellation) { try repairNow(options) }
    }

    /// The same on a thread of its own. Cancelling the task ends the repair, and the next one continues it.
    public func repair(_ options: StoreRepairOptions = StoreRepairOptions()) async throws -> StoreRepairReport {
        try await onOwnThread(options, \.cancellation) { try repair($0) }
    }

    private func repairNow(_ options: StoreRepairOptions) throws -> StoreRepairReport {
        let origin = try options.from.map { try RepairOrigin($0) }
        var repair = RepairOptions { [registry = options.registry, cancellation = options.cancellation] recorded, name, digest in
            let texts: [String]
            switch origin {
            case .repository?: texts = []
            case .reference(let text)?: texts = [text]
            case nil: texts = [recorded?.utf8Text, Self.reference(ofTag: name)].compactMap(\.self)
            }
            var sources: [RepairSource] = []
            for text in texts where !sources.contains(where: { $0.name == ByteString(text) }) {
                sources.append(RepairSource(ByteString(text)) { try openSource(text, for: digest, registry, cancellation) })
            }
            return sources
        }
        if case .repository(let path)? = origin {
            repair.repository = ImageStore(try Repository.open(path, OpenOptions(readOnly: true)))
        }
        repair.cancellation = options.cancellation
        repair.image = options.image
        repair.isDryRun = options.isDryRun
        repair.prunesDangling = options.prunesDangling
        if let observer = options.observer { repair.observer = { event in observer(.repair(event)) } }
        let before = try check(nil, ImageCheckOptions(), observer: options.observer)
        var report = try images.repair(before.repository, before.images, repair)
        try repairDisks(before, options, &report)
        if options.image == nil {
            for link in try SnapshotStore(images).restoreLinks(isDryRun: options.isDryRun) {
                let action = RepairAction.linkWritten(path: link.path, target: link.target)
                report.actions.append(action)
                options.observer?(.repair(.did(action)))
            }
        }
        guard !options.isDryRun, !report.actions.isEmpty else {
            return StoreRepairReport(before: before, repair: report, after: nil)
        }
        options.observer?(.again)
        let after = try check(nil, ImageCheckOptions(), observer: options.observer)
        // The last check has read everything: a device that could not be read for a moment before is no fault of the image.
        for index in report.images.indices where after.repository.isOK {
            guard case .stillDamaged? = report.images[index].failure as? RepairError,
                !after.images.problems.contains(where: { $0.image == report.images[index].name })
            else { continue }
            report.images[index].isWhole = true
            report.images[index].failure = nil
        }
        return StoreRepairReport(before: before, repair: report, after: after)
    }

    /// Makes disks again that are damaged: nothing else has them.
    private func repairDisks(_ before: StoreReport, _ options: StoreRepairOptions, _ report: inout RepairReport) throws {
        // A name of an image that was made from a directory has no disks.
        let only = try options.image.map { try images.hasName($0) ? nil : try images.resolve($0).manifestDigest }
        if case .some(.none) = only { return }
        let damaged = Set(before.repository.problems.compactMap { ObjectID(objectPath: $0.path.bytes.dropFirst(8)) })
        for disk in try ImageDisks(images).repair(only ?? nil, damaged: damaged, isDryRun: options.isDryRun) {
            if disk.failure == nil {
                report.actions.append(.regenerated(image: disk.record))
                options.observer?(.repair(.did(.regenerated(image: disk.record))))
            }
            report.images.append(
                RepairedImage(
                    name: disk.record, manifestDigest: disk.image, wasWhole: false, isWhole: disk.failure == nil && !options.isDryRun,
                    failure: disk.failure))
        }
    }

    /// A tag that is a complete registry reference states the image's source.
    private static func reference(ofTag name: ByteString) -> String? {
        guard let text = name.utf8Text, let reference = try? RegistryReference(parsing: text), reference.canonical == text else {
            return nil
        }
        return "docker://" + text
    }

    /// The source of one manifest: by its digest if the transport has digests, otherwise by the reference.
    private func openSource(
        _ text: String, for digest: ContentDigest, _ registry: RegistryOptions, _ cancellation: Cancellation
    ) throws -> any ImageSource {
        var limits = PullOptions()
        limits.cancellation = cancellation
        limits.limits.manifestBytes = UInt64(ImageLimits.largestManifest)
        var texts = [text]
        switch try parseReference(text) {
        case .registry(let reference): texts = ["docker://\(reference.domain)/\(reference.name)@\(digest)"]
        case .layout(let location):
            if let path = try location.located().path.utf8Text { texts = ["oci:\(path)@\(digest)", text, "oci:\(path)"] }
        case .ociArchive(let location):
            if let path = try location.located().path.utf8Text { texts = ["oci-archive:\(path)@\(digest)", text, "oci-archive:\(path)"] }
        default: break
        }
        var failure: (any Error)?
        for text in texts {
            do { return try openSource(try parseReference(text), limits, registry) } catch { failure = failure ?? error }
        }
        throw failure ?? OCIError.invalidReference(ByteString(text), .notSource)
    }
}

/// The source that the caller named.
private enum RepairOrigin: Sendable {
    case reference(String)
    case repository(ByteString)

    /// The content of a directory decides what it is; anything else is a reference.
    init(_ text: ByteString) throws {
        func holds(_ name: ByteString) throws(SystemError) -> Bool {
            do throws(SystemError) {
                _ = try FileDescriptor.currentDirectory.status(at: text + "/" + name, follow: true)
                return true
            } catch {
                guard error.isMissing else { throw error }
                return false
            }
        }
        if try holds("oci-layout"), let path = text.utf8Text {
            self = .reference("oci:" + path)
        } else if try holds("meta.json") || holds("objects") {
            self = .repository(text)
        } else {
            guard let reference = text.utf8Text else { throw OCIError.invalidReference(text, .notText) }
            switch try parseReference(reference) {
            case .ociArchive(let archive) where archive.isStream, .dockerArchive(let archive) where archive.isStream:
                throw OCIError.invalidReference(text, .readOnce)
            default: self = .reference(reference)
            }
        }
    }
}

extension ImageReference {
    /// The reference with an absolute path, for a later repair in another working directory; empty for a registry's, which is complete in the
    /// source.
    var recorded: ByteString? {
        func absolute(_ transport: String, _ path: ByteString, _ rest: String) -> ByteString? {
            if path.bytes.first == UInt8(ascii: "/") { return bytes }
            guard let here = try? FileDescriptor.open(".", [.pathOnly, .directory]).kernelPath, here.hasPrefix("/") else { return nil }
            return ByteString(transport) + here + "/" + path + ByteString(rest)
        }
        func location(_ transport: String, _ location: ImageLocation) -> ByteString? {
            guard let (path, name) = try? location.located(),
                // A pipe is gone by then.
                let kind = try? FileDescriptor.currentDirectory.statusIfPresent(at: path, follow: true)?.kind,
                kind == .regular || kind == .directory
            else { return nil }
            return absolute(transport, path, name.map { ($0.isDigest ? "@" : ":") + $0.description } ?? "")
        }
        return switch self {
        case .registry: ""
        case .layout(let layout): location("oci:", layout)
        case .ociArchive(let archive) where archive.isStream, .dockerArchive(let archive) where archive.isStream: nil
        case .ociArchive(let archive): location("oci-archive:", archive)
        case .dockerArchive(let archive): location("docker-archive:", archive)
        case .directory(let path): absolute("dir:", path, "")
        case .containersStorage: bytes
        }
    }
}
