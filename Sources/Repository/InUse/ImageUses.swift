public import ComposefsBytes
public import ComposefsHashing
public import ComposefsLinuxSystem
internal import ComposefsMounting

/// What uses an image, whether or not a reference keeps it.
public struct ImageUse: Hashable, Sendable, CustomStringConvertible {
    public enum Kind: String, Sendable, CaseIterable {
        /// It is mounted, by the kernel or with FUSE, in whatever mount namespace.
        case mounted
        /// The kernel's command line names it: this system runs from it.
        case booted
        /// It is among the deployments beside the repository (`state/deploy`).
        case deployed
        /// A boot loader's entry names it.
        case bootEntry = "boot-entry"
    }

    public var kind: Kind
    /// The mount point, seen from the process when there is one; the deployment; the boot entry's file; `/proc/cmdline`.
    public var location: ByteString
    /// Who serves the mount (FUSE), or a process in its mount namespace when that is another than the caller's.
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
        case .booted: "the running system's (\(location))"
        case .deployed: "deployed (\(location))"
        case .bootEntry: "named by a boot entry (\(location))"
        }
    }
}

/// All that is in use. See `Repository.imageUses`.
public struct ImageUses: Sendable {
    /// By the image's identifier: images of this repository, and such as are in none of its objects.
    public internal(set) var images: [ObjectID: [ImageUse]] = [:]
    /// Objects that images need which are no objects of the repository themselves.
    var objects: Set<ObjectID> = []
    /// Mounts by a name that may have been another image's when they were made: every image may be meant.
    var anyImage: [ImageUse] = []
    /// Devices of mounts whose leases tell the image.
    var leasedDevices: Set<ByteString> = []
    /// Leases, by their names, that no process holds any more.
    var staleLeases: Set<ByteString> = []
    /// Uses whose image cannot be told: what it is, and why not. Nothing may be removed then.
    var unknown: [(path: ByteString, why: String)] = []

    /// The uses of an image that may have several EROFS images; empty when it is not in use.
    public func uses(of ids: some Sequence<ObjectID>) -> [ImageUse] {
        var found: [ImageUse] = []
        for id in ids { for use in images[id] ?? [] where !found.contains(use) { found.append(use) } }
        return found
    }

    mutating func add(_ id: ObjectID, _ use: ImageUse) {
        if images[id]?.contains(use) != true { images[id, default: []].append(use) }
    }
}

extension Repository {
    /// What is mounted, booted and deployed, and what boot entries name; see `ImageUse.Kind`. Mounts by other tools are found as far as the kernel's
    /// tables tell their image. An image that is mounted from another repository counts too: more is kept then, never less.
    ///
    /// What is mounted while this looks may be missed, unless the repository's lock keeps others from mounting: see `collectGarbage`.
    ///
    /// - Throws: `RepositoryError.system` when /proc is not mounted, or when a table, directory or boot entry that exists cannot be read: nothing
    ///   may be taken for unused then.
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
