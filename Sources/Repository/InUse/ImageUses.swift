public import ComposefsBytes
public import ComposefsHashing
public import ComposefsLinuxSystem
internal import ComposefsMounting

/// A use of an image, whether or not a reference keeps the image.
public struct ImageUse: Hashable, Sendable, CustomStringConvertible {
    public enum Kind: String, Sendable, CaseIterable {
        /// It is mounted, by the kernel or with FUSE, in any mount namespace.
        case mounted
        /// The kernel's command line names it: this system runs from it.
        case booted
        /// It is among the deployments beside the repository (`state/deploy`).
        case deployed
        /// A boot loader's entry names it.
        case bootEntry = "boot-entry"
    }

    public var kind: Kind
    /// The mount point, as `process` sees it if that is set; the deployment; the boot entry's file; `/proc/cmdline`.
    public var location: ByteString
    /// The process that serves the mount (FUSE), or a process in its mount namespace if that is not the caller's.
    public var process: ProcessIdentity?

    public init(_ kind: Kind, _ location: ByteString, process: ProcessIdentity? = nil) {
        self.kind = kind
        self.location = location
        self.process = process
    }

    /// `mounted at /mnt by process 1234 (cfsoci)`.
    public var description: String {
        switch kind {
        case .mounted: "mounted at \(location)" + (process.map { " (\($0))" } ?? "")
        case .booted: "booted (\(location))"
        case .deployed: "deployed (\(location))"
        case .bootEntry: "named by a boot entry (\(location))"
        }
    }
}

/// A mount whose image cannot be told: its source is a name, which may have been another image's when it was mounted.
public struct UnidentifiedMount: Hashable, Sendable, CustomStringConvertible {
    /// The mount point, and the process that serves it (FUSE).
    public var use: ImageUse
    /// The mount's source in the kernel's table.
    public var source: ByteString
    /// Whether the mount is known to be of this repository: it shows the repository's objects, or the process that serves it has the repository open.
    /// Otherwise that cannot be told, and the source is a name that this repository has.
    public var isOwn: Bool

    init(_ use: ImageUse, source: ByteString, isOwn: Bool) {
        self.use = use
        self.source = source
        self.isOwn = isOwn
    }

    /// `mounted at /mnt (process 7 (cfsctl)) from composefs:app, which names no image ID`.
    public var description: String {
        "\(use) from \(source), which names no image ID" + (isOwn ? "" : ", and perhaps another repository's")
    }

    /// Whether the source may stand for a tag or another name.
    package func mayMean(_ name: ByteString) -> Bool {
        let prefix: ByteString = "composefs:"
        return source == prefix + name || source == prefix + "refs/" + name
    }
}

/// All images in use. See `Repository.imageUses`.
public struct ImageUses: Sendable {
    /// By the image's ID. Some images may not be objects of this repository.
    public internal(set) var images: [ObjectID: [ImageUse]] = [:]
    /// Objects that images outside of the repository need.
    var objects: Set<ObjectID> = []
    /// Mounts that are or may be of this repository, and of which nothing tells the image: any image may be meant.
    public internal(set) var unidentified: [UnidentifiedMount] = []
    /// Devices of mounts with a lease that names the image.
    var leasedDevices: Set<ByteString> = []
    /// Processes that serve what their leases name.
    var leaseProcesses: Set<Int32> = []
    /// The names of leases that no process holds any more.
    var staleLeases: Set<ByteString> = []
    /// Leases and mount points whose image cannot be identified. Nothing may be removed if there are any.
    package var unknown: [(path: ByteString, fault: UseFault)] = []

    /// Whether every use tells its image.
    package var isComplete: Bool { unidentified.isEmpty && unknown.isEmpty }

    /// The uses of an image that may have several EROFS images; empty when it is not in use.
    public func uses(of ids: some Sequence<ObjectID>) -> [ImageUse] {
        var found: [ImageUse] = []
        for id in ids { for use in images[id] ?? [] where !found.contains(use) { found.append(use) } }
        return found
    }

    mutating func add(_ id: ObjectID, _ use: ImageUse) {
        if images[id]?.contains(use) != true { images[id, default: []].append(use) }
    }

    mutating func add(_ mount: UnidentifiedMount) { if !unidentified.contains(mount) { unidentified.append(mount) } }
}

extension Repository {
    /// What is mounted, booted and deployed, and what boot entries name; see `ImageUse.Kind`. Mounts by other tools are found as far as the kernel's
    /// tables tell their image. An image with the same ID that the kernel has mounted from another repository counts too: more is kept then, never less.
    /// A mount whose image cannot be told is in `unidentified` if it is this repository's, or if that cannot be told and its name is one of this
    /// repository's.
    ///
    /// A mount that is made during the call may be missed, unless the repository's lock prevents it: see `collectGarbage`.
    ///
    /// - Throws: `RepositoryError.system` if /proc is not mounted, or if an existing table, directory or boot entry cannot be read. No image may be
    ///   considered unused then.
    public func imageUses() throws(RepositoryError) -> ImageUses {
        var uses = ImageUses()
        let mounts = try system { () throws(SystemError) in try imageMounts() }
        try addLeases(mounts, to: &uses)
        try addMounts(mounts, to: &uses)
        try addBooted(to: &uses)
        return uses
    }

    /// Identifiers in text such as `composefs=HEX`, `composefs.digest=V1-HEX`: every run of hexadecimal digits of the right length.
    static func identifiers(in text: some Collection<UInt8>) -> [ObjectID] {
        text.split(whereSeparator: { Hex.value(of: $0) == nil }).compactMap { ObjectID(hex: $0) }
    }

    /// The identifiers that a kernel command line, or a file that holds one, names for the root file system.
    static func bootIdentifiers(in text: some Collection<UInt8>) -> [ObjectID] {
        let blanks: Set<UInt8> = [0x00, 0x09, 0x0a, 0x0d, 0x20, UInt8(ascii: "\""), UInt8(ascii: "'")]
        return text.split(whereSeparator: { blanks.contains($0) }).filter { $0.starts(with: "composefs".utf8) }.flatMap {
            identifiers(in: $0)
        }
    }
}
