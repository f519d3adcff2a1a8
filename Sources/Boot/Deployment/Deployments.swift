public import ComposefsBootFormats
public import ComposefsBytes
public import ComposefsHashing
import ComposefsLinuxSystem
public import ComposefsRepository

/// The deployments of a system: `state` beside the repository, as the reference implementation and bootc have it.
///
///     state/deploy/ID/etc/upper    local changes to /etc, the upper directory of an overlay over the image's
///     state/deploy/ID/etc/work     the overlay's working directory
///     state/deploy/ID/var          a link to the shared /var, or a directory of its own
///     state/deploy/ID/deployment.json, pinned
///     state/os/default/var         the shared /var
///
/// Collections keep every image with a directory `state/deploy/ID`.
public final class Deployments: Sendable {
    /// The directory that holds the repository and `state`.
    public let sysroot: ByteString
    /// The images that the running kernel's arguments name.
    public let running: [ObjectID]
    let root: RootedDirectory

    static let deploy: ByteString = "state/deploy"
    static let sharedVar: ByteString = "state/os/default/var"
    private static let systemFile: ByteString = "state/cfsoci-system"
    static let record: ByteString = "deployment.json"
    private static let pin: ByteString = "pinned"
    /// The beginning of the names of unfinished and removed deployments. It names no image, so that collections do not keep one for it.
    static let temporaryPrefix: ByteString = ".tmp-"
    private static let textLimit = 1 << 20

    /// - Parameters:
    ///   - sysroot: the directory that holds the repository; nil asks the repository.
    ///   - commandLine: the arguments of the running kernel; nil reads them.
    /// - Throws: `BootError.otherSysroot`, `SystemError`.
    public init(beside repository: Repository, sysroot: ByteString? = nil, commandLine: KernelCommandLine? = nil) throws {
        let above = repository.path + "/.."
        let directory = try FileDescriptor.open(sysroot ?? above, [.pathOnly, .directory])
        let (found, expected) = (try directory.status(), try FileDescriptor.open(above, [.pathOnly, .directory]).status())
        let path = directory.kernelPath
        guard found.device == expected.device, found.inode == expected.inode else {
            throw BootError.otherSysroot(path, repository: repository.path)
        }
        self.sysroot = path
        // An argument of another form cannot be what this system was booted by.
        running = try (commandLine ?? Self.runningCommandLine()).arguments.compactMap { try? ComposefsArgument($0)?.id }
        root = RootedDirectory(directory)
    }

    private static func runningCommandLine() throws(SystemError) -> KernelCommandLine {
        KernelCommandLine(parsing: try FileDescriptor.open("/proc/cmdline", .readOnly).readAll(limit: textLimit))
    }

    // MARK: Reading

    /// All deployments, the newest first.
    public func all() throws -> [Deployment] {
        var found: [Deployment] = []
        for entry in try root.entries(of: Self.deploy) ?? [] {
            guard let id = ObjectID(hex: entry.name.bytes), let deployment = try deployment(id) else { continue }
            found.append(deployment)
        }
        return found.sorted { ($0.record?.prepared ?? 0, $0.id) > ($1.record?.prepared ?? 0, $1.id) }
    }

    static func directory(_ id: ObjectID) -> ByteString { deploy + "/" + ByteString(id.hex) }

    /// Nil if the image is not deployed.
    public func deployment(_ id: ObjectID) throws -> Deployment? {
        let directory = Self.directory(id)
        guard try root.statusIfPresent(at: directory)?.kind == .directory else { return nil }
        var record: DeploymentRecord?
        if let file = try root.openIfPresent(at: directory + "/" + Self.record, [.readOnly, .noFollow, .nonBlocking]),
            try file.status().kind == .regular
        {
            record = DeploymentRecord(try file.readAll(limit: Self.textLimit))
        }
        return Deployment(
            id: id, record: record, isPinned: try root.statusIfPresent(at: directory + "/" + Self.pin) != nil,
            hasOwnVar: try root.statusIfPresent(at: directory + "/var")?.kind == .directory)
    }

    /// The deployment that is running.
    public func booted() throws -> Deployment? {
        for id in running { if let deployment = try deployment(id) { return deployment } }
        return nil
    }

    /// The deployment with this ID, the beginning of one with 6 digits or more, an entry's name, or the name of an image.
    ///
    /// - Throws: `BootError.noDeployment`, `.severalDeployments`.
    public func find(_ text: ByteString, _ entries: [BootEntry]) throws -> Deployment {
        let all = try all()
        if let entry = entries.first(where: { $0.id == text || $0.name.name == text }),
            let deployment = all.first(where: { entry.images.contains($0.id) })
        {
            return deployment
        }
        let isHex = text.count >= 6 && text.bytes.allSatisfy { Hex.value(of: $0) != nil }
        let matching = all.filter { (isHex && $0.id.hex.utf8.starts(with: text.bytes)) || $0.record?.image == text }
        guard let first = matching.first else { throw BootError.noDeployment(text) }
        guard matching.count == 1 else { throw BootError.severalDeployments(text, matching.map(\.id)) }
        return first
    }

    // MARK: Writing

    /// Runs `body` while no other process changes deployments.
    func withLock<Result>(_ body: () throws -> Result) throws -> Result {
        try makeDirectories(Self.deploy)
        let directory = try root.open(at: Self.deploy, [.readOnly, .directory])
        try directory.lock(.exclusive)
        let result = try body()
        // After a failure, closing the directory releases the lock.
        try directory.unlock()
        return result
    }

    func makeDirectories(_ path: ByteString) throws(SystemError) {
        var at: ByteString?
        for name in path.bytes.split(separator: UInt8(ascii: "/")) {
            let parent = at ?? "."
            let next = at.map { $0 + "/" + ByteString(name) } ?? ByteString(name)
            if try root.makeDirectoryIfMissing(at: next) { try root.open(at: parent, [.readOnly, .directory]).sync() }
            at = next
        }
    }

    /// Writes a small file in place of another, durably.
    func write(_ bytes: [UInt8], at path: ByteString) throws(SystemError) {
        let (directory, name) = FileDescriptor.split(path)
        let temporary = directory + "/" + Self.temporaryPrefix + ByteString(Host.randomName(12))
        do throws(SystemError) {
            let file = try root.open(at: temporary, [.writeOnly, .create, .exclusive, .noFollow], mode: 0o644)
            try file.writeAll(bytes)
            try file.sync()
            try root.rename(at: temporary, to: directory + "/" + name)
        } catch {
            try? root.unlink(at: temporary)
            throw error
        }
        try root.open(at: directory, [.readOnly, .directory]).sync()
    }

    /// A mark by which this system tells its own entries from those of others on the same boot partition. It is made when it is missing.
    func system() throws(SystemError) -> ByteString {
        if let file = try root.openIfPresent(at: Self.systemFile, [.readOnly, .noFollow, .nonBlocking]) {
            let text = ByteString(trimmingASCIISpace(try file.readAll(limit: Self.textLimit)[...]))
            if text.count == 8, text.bytes.allSatisfy({ Hex.value(of: $0) != nil }) { return text }
        }
        let new = ByteString(ContentDigest.of(Array(Host.randomName(32).utf8)).hex.prefix(8).description)
        try write(new.bytes + [UInt8(ascii: "\n")], at: Self.systemFile)
        return new
    }

    /// The mark, if there is one.
    func knownSystem() throws(SystemError) -> ByteString? { try root.statusIfPresent(at: Self.systemFile) == nil ? nil : try system() }

    /// Keeps a deployment until it is no longer pinned.
    ///
    /// - Returns: whether that is a change.
    @discardableResult
    public func setPinned(_ isPinned: Bool, _ id: ObjectID) throws -> Bool {
        guard let deployment = try deployment(id) else { throw BootError.noDeployment(ByteString(id.hex)) }
        guard deployment.isPinned != isPinned else { return false }
        let path = Self.directory(id) + "/" + Self.pin
        try withLock {
            if isPinned { return try write([], at: path) }
            try root.unlink(at: path)
            try root.open(at: Self.directory(id), [.readOnly, .directory]).sync()
        }
        return true
    }

    /// Removes what interrupted preparations and removals have left.
    ///
    /// - Returns: the number of directories and files.
    @discardableResult
    func removeTemporaries() throws(SystemError) -> Int {
        var count = 0
        for entry in try root.entries(of: Self.deploy) ?? [] where entry.name.hasPrefix(Self.temporaryPrefix) {
            let path = Self.deploy + "/" + entry.name
            if try root.status(at: path).kind == .directory { try root.removeTree(at: path) } else { try root.unlink(at: path) }
            count += 1
        }
        return count
    }
}
