public import ComposefsBytes
public import ComposefsConcurrency
import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsOCIModel
public import ComposefsRegistry
import ComposefsRepository
public import ComposefsTransfer
import ComposefsTransports

/// How `Store.repair` repairs.
public struct StoreRepairOptions: Sendable {
    /// Only this image, as `ImageStore.resolve` takes it; nil for all.
    public var image: ByteString?
    /// Only say what would be done.
    public var isDryRun = false
    /// Remove references that lead to nothing.
    public var prunesDangling = false
    /// Where to fetch damaged images from: a reference as `Store.pull` takes it, a directory that is an OCI layout, or another repository. Nil for
    /// where each image came from, as it was recorded when it was pulled or as its name says.
    public var from: ByteString?
    /// Credentials, TLS and timeouts for registries.
    public var registry = RegistryOptions()
    /// Ends the repair.
    public var cancellation = Cancellation()
    /// Told what happens, from several threads; must not block.
    public var observer: (@Sendable (StoreCheckEvent) -> Void)?

    public init() {}
}

/// What a check, or a repair, of a store tells while it runs.
public enum StoreCheckEvent: Sendable {
    /// So many objects were read, of all that are to be read.
    case objects(done: Int, total: Int)
    /// All objects were read; images are being looked at.
    case images
    case repair(RepairEvent)
    /// The repair is done, and the store is checked again.
    case again
}

/// What a repair of a store found and did.
public struct StoreRepairReport: Sendable {
    /// What was found before.
    public var before: StoreReport
    public var repair: RepairReport
    /// What is found now; nil where nothing was changed.
    public var after: StoreReport?

    /// Whether the store has no fault now.
    public var isClean: Bool { (after ?? before).isClean }
}

extension Store {
    /// Checks all of the store, repairs what is damaged, and checks again.
    ///
    /// What has a wrong name is set aside, images that are not whole are stored anew: from what is left of them here and, for the rest, from
    /// where they came from, only the layers that are needed. Each step is atomic and durable; a repair that was cut short is continued by
    /// the next one. See `ImageStore.repair`. A damaged `meta.json` keeps a store from being opened: `Repository.repairMetadata` comes before.
    ///
    /// - Throws: `RepositoryError` where the repository cannot be read or written to, `OCIError` where `from` means nothing. Why an image cannot
    ///   be repaired is in the report.
    ///   `CancellationError` if it was cancelled.
    public func repair(_ options: StoreRepairOptions = StoreRepairOptions()) throws -> StoreRepairReport {
        try cancellable(options.cancellation) { try repairNow(options) }
    }

    /// The same on a thread of its own. Cancelling the task ends the repair; the next one continues it.
    public func repair(_ options: StoreRepairOptions = StoreRepairOptions()) async throws -> StoreRepairReport {
        try await onOwnThread(options.cancellation) { cancellation in
            var options = options
            options.cancellation = cancellation
            return try repair(options)
        }
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
        let report = try images.repair(before.repository, before.images, repair)
        guard !options.isDryRun, !report.actions.isEmpty else {
            return StoreRepairReport(before: before, repair: report, after: nil)
        }
        options.observer?(.again)
        let after = try check(nil, ImageCheckOptions(), observer: options.observer)
        return StoreRepairReport(before: before, repair: report, after: after)
    }

    /// A tag that is a registry's reference in full says where the image is.
    private static func reference(ofTag name: ByteString) -> String? {
        guard let text = name.utf8Text, let reference = try? RegistryReference(parsing: text), reference.canonical == text else {
            return nil
        }
        return "docker://" + text
    }

    /// The source of one manifest: by its digest where that can be asked for, else by what the reference means now.
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
            do { return try openSource(text, limits, registry) } catch { failure = failure ?? error }
        }
        throw failure ?? OCIError.invalidReference(ByteString(text), .notSource)
    }
}

/// What a repair is told to fetch from.
private enum RepairOrigin: Sendable {
    case reference(String)
    case repository(ByteString)

    /// A directory is what it holds; anything else is a reference.
    init(_ text: ByteString) throws {
        func holds(_ name: ByteString) -> Bool {
            (try? FileDescriptor.currentDirectory.status(at: text + "/" + name, follow: true)) != nil
        }
        if holds("oci-layout"), let path = text.utf8Text {
            self = .reference("oci:" + path)
        } else if holds("meta.json") || holds("objects") {
            self = .repository(text)
        } else {
            guard let reference = text.utf8Text else { throw OCIError.invalidReference(text, .notText) }
            _ = try parseReference(reference)
            self = .reference(reference)
        }
    }
}

extension ImageReference {
    /// The reference as a later repair can use it, wherever that is run; empty for a registry's, which the source says in full.
    func recorded(_ text: String) -> ByteString? {
        func absolute(_ transport: String, _ path: ByteString, _ rest: String) -> ByteString? {
            if path.bytes.first == UInt8(ascii: "/") { return ByteString(text) }
            guard let here = try? FileDescriptor.open(".", [.pathOnly, .directory]).kernelPath, here.hasPrefix("/") else { return nil }
            return ByteString(transport) + here + "/" + path + ByteString(rest)
        }
        func location(_ transport: String, _ location: ImageLocation) -> ByteString? {
            guard let (path, name) = try? location.located() else { return nil }
            return absolute(transport, path, name.map { ($0.isDigest ? "@" : ":") + $0.description } ?? "")
        }
        return switch self {
        case .registry: ""
        case .layout(let layout): location("oci:", layout)
        case .ociArchive(let archive): location("oci-archive:", archive)
        case .dockerArchive(let archive): location("docker-archive:", archive)
        case .directory(let path): absolute("dir:", path, "")
        case .containersStorage: ByteString(text)
        }
    }
}
