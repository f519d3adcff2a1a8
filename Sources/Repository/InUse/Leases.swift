public import ComposefsBytes
public import ComposefsHashing
internal import ComposefsJSON
internal import ComposefsLinuxSystem
internal import ComposefsMounting
internal import Synchronization

// Leases: what a process that serves an image (FUSE) leaves in the repository instead of holding its lock, so that a collection need not wait for it.
//
// `.leases/RANDOM` names image and process, and the process holds an exclusive flock on it for as long as it serves. Beside it the link
// `images/refs/.leases/RANDOM` keeps the image for programs that know no leases. Both are made with the repository's shared lock held, which the
// process gives up only then, and removed at its end. A process that was killed leaves them; the next collection removes them.
//
// The kernel's mounts need no lease as long as their source tells the image. One with another source has a lease that names the mount's device, and
// that no process holds.
//
// A lease is live when its lock is held, when the process that it names is running, or when something is mounted with the device that it names: one is
// enough, so that a lease which is damaged or forged can only keep more. One that is live and cannot be read stops a collection; one that is not live
// cannot, whatever is in it.

/// Keeps an image for this process, from its making to `end` or its own end.
public final class ImageLease: Sendable {
    private let root: RootedDirectory
    private let file: FileDescriptor
    private let name: ByteString
    private let hasEnded = Atomic<Bool>(false)

    init(root: consuming RootedDirectory, file: consuming FileDescriptor, name: ByteString) {
        self.root = root
        self.file = file
        self.name = name
    }

    deinit { end() }

    /// Leaves the lease where it is.
    func leave() { hasEnded.store(true, ordering: .sequentiallyConsistent) }

    /// Gives the image up. What it kept stays until garbage is collected.
    public func end() {
        guard !hasEnded.exchange(true, ordering: .sequentiallyConsistent) else { return }
        // The link first: without its lease it would be left over. Errors: the lock ends with the process, and the next collection does the rest.
        try? root.unlink(at: Layout.leaseReferences + "/" + name)
        try? root.unlink(at: Layout.leases + "/" + name)
        try? root.removeDirectory(at: Layout.leaseReferences)
        try? root.removeDirectory(at: Layout.leases)
    }
}

extension Repository {
    /// Keeps an image for this process without the repository's lock: collections go on, and keep what the image needs. This handle must stay open
    /// until `lease` has returned.
    ///
    /// - Parameter directory: where the image is served; for messages.
    /// - Throws: `RepositoryError.readOnly`, `.untrusted` and others when nothing can be written here; then only this handle keeps the image.
    public func lease(_ image: ObjectID, at directory: ByteString) throws(RepositoryError) -> ImageLease {
        try writeLease(Lease(image: image, process: Host.process(Host.processID), boot: Host.bootID(), directory: directory))
    }

    /// Keeps an image that the kernel has mounted with a source which does not tell it, as long as it is mounted. This handle must have been open since
    /// before the mount was made.
    ///
    /// - Parameter directory: the mount point.
    /// - Throws: as `lease`; then collections stop as long as the image is mounted.
    public func leaseMount(of image: ObjectID, at directory: ByteString) throws(RepositoryError) {
        let (path, device) = try system { () throws(SystemError) in
            let root = try FileDescriptor.open(directory, [.pathOnly, .directory])
            return (root.kernelPath, Host.deviceName(try root.status().device))
        }
        try writeLease(Lease(image: image, boot: Host.bootID(), directory: path, device: device)).leave()
    }

    private func writeLease(_ lease: Lease) throws(RepositoryError) -> ImageLease {
        try requireWritable()
        let (image, content) = (lease.image, lease.text)
        return try system { () throws(SystemError) in
            // Another process that ends may remove an empty directory in between.
            for _ in 0..<16 {
                let name = ByteString(Host.randomName(12))
                let path = Layout.leases + "/" + name
                do throws(SystemError) {
                    try root.makeDirectoryIfMissing(at: Layout.leases, mode: 0o755)
                    let file = try root.open(at: path, [.readWrite, .create, .exclusive], mode: 0o644)
                    do throws(SystemError) {
                        // Someone may be trying the lock of the new file.
                        if try file.lock(.exclusive, wait: false) {
                            try file.writeAll(content)
                            for parent in [Layout.images, Layout.imageReferences, Layout.leaseReferences] {
                                try root.makeDirectoryIfMissing(at: parent, mode: 0o755)
                            }
                            try root.symlink(target: "../../" + ByteString(image.hex), at: Layout.leaseReferences + "/" + name)
                            // A lock of its own would be the lock's end for this handle: the directory is opened anew, without one.
                            let own = RootedDirectory(try root.descriptor.open(at: ".", [.readOnly, .directory]))
                            return ImageLease(root: own, file: file, name: name)
                        }
                    } catch {
                        try? root.unlink(at: Layout.leaseReferences + "/" + name)
                        try? root.unlink(at: path)
                        throw error
                    }
                    try? root.unlink(at: path)
                } catch {
                    guard error.errno == .noEntry else { throw error }
                }
            }
            throw SystemError("create a file in", Layout.leases, .noEntry)
        }
    }

    /// What leases say, and which of them nobody holds any more.
    func addLeases(_ mounts: [ImageMount], to uses: inout ImageUses) throws(RepositoryError) {
        let devices = Set(mounts.map(\.device))
        var names: Set<ByteString> = []
        for entry in try entries(of: Layout.leases) ?? [] {
            let path = Layout.leases + "/" + entry.name
            do throws(SystemError) {
                guard let file = try root.openIfPresent(at: path, [.readOnly, .noFollow, .nonBlocking]) else { continue }
                guard try file.status().kind == .regular else {
                    uses.staleLeases.insert(entry.name)
                    continue
                }
                let lease = (try? file.readAll(limit: Lease.sizeLimit)).flatMap { Lease(parsing: $0) }
                // A file system without such locks tells nothing, and then what the lease says decides.
                let isHeld = try !file.lock(.shared, wait: false)
                let isMounted = lease?.isMounted(devices) == true
                guard isHeld || isMounted || lease?.isProcessRunning == true else {
                    uses.staleLeases.insert(entry.name)
                    continue
                }
                names.insert(entry.name)
                let process = isHeld ? Host.lockHolders(of: file).first : nil
                guard let lease else {
                    uses.unknown.append((path, .leaseWithoutImage(holder: process)))
                    continue
                }
                if isMounted, let device = lease.device { uses.leasedDevices.insert(device) }
                if let process = process ?? lease.process { uses.leaseProcesses.insert(process.number) }
                uses.add(lease.image, ImageUse(.mounted, lease.directory, process: process ?? lease.process))
            } catch {
                switch error.errno {
                // A symbolic link or a socket: no process has made it.
                case .tooManySymbolicLinks, .noDeviceOrAddress: uses.staleLeases.insert(entry.name)
                default: uses.unknown.append((path, .unreadableLease(error)))
                }
            }
        }
        for entry in try entries(of: Layout.leaseReferences) ?? [] where !names.contains(entry.name) { uses.staleLeases.insert(entry.name) }
    }

    /// Removes what is left of leases that nobody holds.
    func removeLeases(_ names: Set<ByteString>) throws(RepositoryError) {
        for directory in [Layout.leaseReferences, Layout.leases] {
            for name in names.sorted() {
                let path = directory + "/" + name
                do throws(SystemError) {
                    try root.unlink(at: path)
                } catch {
                    switch error.errno {
                    case .noEntry: break
                    case .isDirectory, .notPermitted: try Self.removeTree(path, in: root)
                    default: throw .system(error)
                    }
                }
            }
            try? root.removeDirectory(at: directory)
        }
    }
}

/// A lease's text.
struct Lease: Hashable {
    static let sizeLimit = 1 << 16
    private static let version: Int64 = 1

    var image: ObjectID
    /// Nil when /proc did not tell.
    var process: ProcessIdentity?
    var boot: String?
    var directory: ByteString
    /// Of a mount by the kernel, `major:minor`.
    var device: ByteString?

    init(image: ObjectID, process: ProcessIdentity? = nil, boot: String?, directory: ByteString, device: ByteString? = nil) {
        self.image = image
        self.process = process
        self.boot = boot
        self.directory = directory
        self.device = device
    }

    /// Nil for what is no lease of this version.
    init?(parsing bytes: [UInt8]) {
        guard let document = try? JSONValue.parse(bytes), document["version"]?.int64 == Self.version,
            let image = document["image"]?.string.flatMap({ ObjectID(hex: $0) })
        else { return nil }
        self.image = image
        if let number = document["process"]?.int64.flatMap({ Int32(exactly: $0) }),
            let start = document["start"]?.int64.flatMap({ UInt64(exactly: $0) })
        {
            process = ProcessIdentity(number: number, name: ByteString(document["program"]?.string ?? ""), start: start)
        }
        boot = document["boot"]?.string
        directory = ByteString(document["directory"]?.string ?? "")
        device = document["device"]?.string.map { ByteString($0) }
    }

    var text: [UInt8] {
        var members: [(key: String, value: JSONValue)] = [("version", .integer(Self.version)), ("image", .string(image.hex))]
        if let process, let start = Int64(exactly: process.start) {
            members.append(("process", .integer(Int64(process.number))))
            members.append(("start", .integer(start)))
            members.append(("program", .string(process.name.utf8Text ?? process.name.description)))
        }
        if let boot { members.append(("boot", .string(boot))) }
        if let device { members.append(("device", .string(device.description))) }
        members.append(("directory", .string(directory.utf8Text ?? directory.description)))
        return JSONValue.object(JSONObject(members)).serialized() + [UInt8(ascii: "\n")]
    }

    /// Whether something has the device, in this boot.
    func isMounted(_ devices: Set<ByteString>) -> Bool {
        guard let device, let boot, boot == Host.bootID() else { return false }
        return devices.contains(device)
    }

    /// Whether the very process is there, in this boot.
    var isProcessRunning: Bool {
        guard let process, let boot, boot == Host.bootID() else { return false }
        return Host.process(process.number)?.start == process.start
    }
}
