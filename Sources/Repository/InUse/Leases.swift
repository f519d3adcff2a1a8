public import ComposefsBytes
public import ComposefsHashing
internal import ComposefsJSON
internal import ComposefsLinuxSystem
internal import ComposefsMounting
internal import Synchronization

// Leases. A process that serves an image (FUSE) holds a lease instead of the repository's lock, so that a collection need not wait for it.
//
// `.leases/RANDOM` names the image and the process, and the process holds an exclusive flock on it while it serves. The link
// `images/refs/.leases/RANDOM` keeps the image for programs that do not know leases. Both are created under the repository's shared lock, which the
// process then releases, and are removed when it ends. If the process is killed, the next collection removes them.
//
// A kernel mount needs no lease if its source names the image. A mount with another source has a lease that names the mount's device and that no
// process holds.
//
// A lease is live if its lock is held, if the process that it names is running, or if its device is mounted. One of these is sufficient, so a damaged
// or forged lease can only keep more. A live lease that cannot be read stops a collection; a lease that is not live never does.

/// Keeps an image for this process until `end` is called or the process ends.
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

    /// Keeps the lease after this value is gone.
    func leave() { hasEnded.store(true, ordering: .sequentiallyConsistent) }

    /// Releases the image. Its objects stay until a garbage collection.
    public func end() {
        guard !hasEnded.exchange(true, ordering: .sequentiallyConsistent) else { return }
        // The link first: without a lease nothing would remove it. Errors are ignored: the lock ends with the process, and the next collection
        // removes both.
        try? root.unlink(at: Layout.leaseReferences + "/" + name)
        try? root.unlink(at: Layout.leases + "/" + name)
        try? root.removeDirectory(at: Layout.leaseReferences)
        try? root.removeDirectory(at: Layout.leases)
    }
}

extension Repository {
    /// Keeps an image for this process without the repository's lock: collections continue, and keep what the image needs. This handle must stay open
    /// until `lease` has returned.
    ///
    /// - Parameter directory: the mount point, for messages.
    /// - Throws: `RepositoryError.readOnly`, `.untrusted` and others if nothing can be written; then only this handle keeps the image.
    public func lease(_ image: ObjectID, at directory: ByteString) throws(RepositoryError) -> ImageLease {
        try writeLease(Lease(image: image, process: Host.process(Host.processID), boot: Host.bootID(), directory: directory))
    }

    /// Keeps an image that is mounted by the kernel with a source that does not name it, as long as it is mounted. This handle must have been open
    /// since before the mount was made.
    ///
    /// - Parameter directory: the mount point.
    /// - Throws: as `lease`; then collections fail as long as the image is mounted.
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
            // Another process that ends may remove the empty directory in between.
            for _ in 0..<16 {
                let name = ByteString(Host.randomName(12))
                let path = Layout.leases + "/" + name
                do throws(SystemError) {
                    try root.makeDirectoryIfMissing(at: Layout.leases, mode: 0o755)
                    let file = try root.open(at: path, [.readWrite, .create, .exclusive], mode: 0o644)
                    do throws(SystemError) {
                        // Another process may be trying the lock of the new file.
                        if try file.lock(.exclusive, wait: false) {
                            try file.writeAll(content)
                            for parent in [Layout.images, Layout.imageReferences, Layout.leaseReferences] {
                                try root.makeDirectoryIfMissing(at: parent, mode: 0o755)
                            }
                            try root.symlink(target: "../../" + ByteString(image.hex), at: Layout.leaseReferences + "/" + name)
                            // Locking this descriptor would convert this handle's own lock, so the directory is opened again.
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

    /// Adds the images of live leases, and the names of stale ones.
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
                // On a file system without such locks, only the content of the lease decides.
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
                // A symbolic link or a socket, which is not a lease.
                case .tooManySymbolicLinks, .noDeviceOrAddress: uses.staleLeases.insert(entry.name)
                default: uses.unknown.append((path, .unreadableLease(error)))
                }
            }
        }
        for entry in try entries(of: Layout.leaseReferences) ?? [] where !names.contains(entry.name) { uses.staleLeases.insert(entry.name) }
    }

    /// Removes the files and links of stale leases.
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
    /// Nil if /proc did not show it.
    var process: ProcessIdentity?
    var boot: String?
    var directory: ByteString
    /// The device of a kernel mount, `major:minor`.
    var device: ByteString?

    init(image: ObjectID, process: ProcessIdentity? = nil, boot: String?, directory: ByteString, device: ByteString? = nil) {
        self.image = image
        self.process = process
        self.boot = boot
        self.directory = directory
        self.device = device
    }

    /// Nil if the text is not a lease of this version.
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

    /// Whether the device is mounted, in this boot.
    func isMounted(_ devices: Set<ByteString>) -> Bool {
        guard let device, let boot, boot == Host.bootID() else { return false }
        return devices.contains(device)
    }

    /// Whether the same process is running, in this boot.
    var isProcessRunning: Bool {
        guard let process, let boot, boot == Host.bootID() else { return false }
        return Host.process(process.number)?.start == process.start
    }
}
