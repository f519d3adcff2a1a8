public import ComposefsBytes
public import ComposefsLinuxSystem

/// How a FUSE file system is mounted.
public struct FuseMountOptions: Sendable, Hashable {
    /// What the kernel's tables (`/proc/self/mountinfo`) show as the mount's source.
    public var source: ByteString
    /// Lets users other than the one who mounts look inside. Who is not root needs `user_allow_other` in `/etc/fuse.conf` for that.
    public var allowOther: Bool
    /// Of the mount: `.noSetUserID` (nosuid), `.noDevices` (nodev), `.noExecute` (noexec) and the like; it is read-only always. Without
    /// the first two, or with others than noexec and noatime, only root can mount.
    public var attributes: MountAttributes

    public init(
        source: ByteString = "composefs", allowOther: Bool = false, attributes: MountAttributes = .withoutPrivileges
    ) {
        self.source = source
        self.allowOther = allowOther
        self.attributes = attributes
    }

    /// The attributes as `fusermount3` names them; nil if it does not give them.
    var helperAttributes: ByteString? {
        let known: MountAttributes = [.readOnly, .noSetUserID, .noDevices, .noExecute, .noAccessTime]
        guard attributes.isSuperset(of: .withoutPrivileges), attributes.isSubset(of: known) else { return nil }
        return "ro,nosuid,nodev" + (attributes.contains(.noExecute) ? ",noexec" : "")
            + (attributes.contains(.noAccessTime) ? ",noatime" : "")
    }
}

/// A read-only FUSE file system at a directory, which nobody serves yet.
///
/// Who may mount does it directly; for everybody else `fusermount3` does it. `attach` makes a direct mount visible, so that a failure
/// before leaves nothing behind.
public struct FuseMount: ~Copyable, Sendable {
    private let device: FuseDevice
    /// Nil where the helper has attached it.
    private var detached: FileDescriptor?
    private let target: FileDescriptor
    private let options: FuseMountOptions

    /// Makes the file system. The target must be a directory.
    public init(at target: ByteString, _ options: FuseMountOptions = FuseMountOptions()) throws(FuseError) {
        let directory = try Self.openTarget(target)
        let made = try Self.make(at: directory.kernelPath, options)
        self.init(made, at: directory, options)
    }

    // Swift 6.2 destroys properties twice when an initializer of a noncopyable type throws after it set one, and a `var` that is
    // optional is set from the start.
    private init(_ made: consuming Made, at target: consuming FileDescriptor, _ options: FuseMountOptions) {
        device = made.device
        detached = made.mount
        self.target = target
        self.options = options
    }

    private static func openTarget(_ path: ByteString) throws(FuseError) -> FileDescriptor {
        do throws(SystemError) {
            let directory = try FileDescriptor.open(path, [.pathOnly, .directory])
            let status = try directory.status()
            for needed: ByteString in ["/dev", "/proc"] {
                let own = try? FileDescriptor.currentDirectory.status(at: needed, follow: true)
                guard own?.device != status.device || own?.inode != status.inode else { throw SystemError("cover", needed, .busy) }
            }
            return directory
        } catch {
            if error.operation == "cover" { throw .coversNeeded(error.path) }
            throw error.errno == .notConnected ? .notServed(path) : .system(error)
        }
    }

    /// A descriptor to serve the file system with.
    public borrowing func connection() throws(FuseError) -> FuseDevice {
        do throws(SystemError) { return try device.duplicate() } catch { throw .system(error) }
    }

    /// Makes it visible; the mount and the way to end it.
    public consuming func attach() throws(FuseError) -> AttachedFuseMount {
        if let detached = detached.take() {
            do throws(SystemError) {
                try detached.attachMount(to: target)
            } catch {
                throw error.errno == .notPermitted ? .noRights(error) : .system(error)
            }
            return AttachedFuseMount(path: target.kernelPath, number: (try? detached.mountID()) ?? nil)
        }
        let path = target.kernelPath
        return AttachedFuseMount(path: path, number: AttachedFuseMount.number(at: path))
    }

    /// Gives it up. What the helper has attached would stay without anybody to serve it.
    public consuming func abandon() {
        guard detached == nil else { return }
        try? unmountFuse(target.kernelPath, lazily: true)
    }

    private struct Made: ~Copyable {
        var device: FuseDevice
        /// Nil where the helper has attached it.
        var mount: FileDescriptor?
    }

    private static func make(at target: ByteString, _ options: FuseMountOptions) throws(FuseError) -> Made {
        do throws(FuseError) {
            return try makeDirectly(options)
        } catch {
            guard case .noRights(let reason) = error else { throw error }
            return Made(device: try makeByHelper(at: target, options, reason), mount: nil)
        }
    }

    private static func makeDirectly(_ options: FuseMountOptions) throws(FuseError) -> Made {
        let context: FileSystemContext
        do throws(SystemError) {
            context = try FileSystemContext("fuse")
        } catch {
            switch error.errno {
            case .notPermitted, .noSystemCall: throw .noRights(error)
            default: throw .noDevice(error)
            }
        }
        let device: FuseDevice
        do throws(SystemError) { device = try FuseDevice() } catch { throw .noDevice(error) }
        do throws(SystemError) {
            try context.setFlag("ro")
            try context.set("source", options.source)
            try context.set("subtype", "composefs")
            try context.set("fd", ByteString("\(device.descriptor.raw)"))
            try context.set("rootmode", "40000")
            try context.set("user_id", ByteString("\(Host.effectiveUserID)"))
            try context.set("group_id", ByteString("\(Host.effectiveGroupID)"))
            // The kernel checks permissions and ACLs by itself.
            try context.setFlag("default_permissions")
            if options.allowOther { try context.setFlag("allow_other") }
            try context.create()
            return Made(device: device, mount: try context.mount(options.attributes.union(.readOnly)))
        } catch {
            if error.errno == .notPermitted { throw .noRights(error) }
            throw .mount(error, kernel: context.messages())
        }
    }

    /// fusermount3 (libfuse) mounts with root's rights and passes the device back over the socket that `_FUSE_COMMFD` names.
    private static func makeByHelper(
        at target: ByteString, _ options: FuseMountOptions, _ reason: SystemError
    ) throws(FuseError) -> FuseDevice {
        guard let attributes = options.helperAttributes else { throw .attributesNeedRoot(reason) }
        let list = attributes + ",default_permissions,subtype=composefs,fsname="
        let arguments: [ByteString] = ["-o", list + options.source + (options.allowOther ? ",allow_other" : ""), "--", target]
        let sockets: SocketPair
        do throws(SystemError) { sockets = try FileDescriptor.socketPair() } catch { throw .system(error) }
        let helper = try runHelper(arguments, environment: ["_FUSE_COMMFD=3"], inherited: sockets.second.raw, reason)
        // Ours closed, the other end ends with the helper.
        let own = sockets.keepFirst()
        do throws(SystemError) {
            let device = try own.receiveDescriptor()
            _ = try helper.wait()
            return FuseDevice(owning: device)
        } catch {
            let status = (try? helper.wait()) ?? 1
            throw .helper(status)
        }
    }

    fileprivate static func runHelper(
        _ arguments: [ByteString], environment: [ByteString] = [], inherited: Int32? = nil, _ reason: SystemError
    ) throws(FuseError) -> ChildProcess {
        for name: ByteString in ["fusermount3", "fusermount"] {
            do throws(SystemError) {
                return try ChildProcess.start(name, arguments, environment: environment, inherited: inherited)
            } catch {
                guard error.errno == .noEntry else { throw .system(error) }
            }
        }
        throw .noRights(reason)
    }
}

/// A FUSE file system that is mounted.
public struct AttachedFuseMount: Sendable, Hashable {
    /// The directory, as the kernel names it.
    public let path: ByteString
    /// By which the kernel's tables list it; nil where they do not.
    let number: UInt64?

    /// Unmounts it. With `lazily` even where it is in use; it then ends with its last user, or its server.
    public func unmount(lazily: Bool = false) throws(FuseError) {
        // Its path may have been renamed; somebody may have unmounted it, and mounted something else there.
        let place = (number.flatMap { try? FileDescriptor.path(ofMount: $0) } ?? nil) ?? path
        guard Self.number(at: place) == number else { throw .notMounted(path) }
        try unmountFuse(place, lazily: lazily)
    }

    fileprivate static func number(at path: ByteString) -> UInt64? {
        guard let directory = try? FileDescriptor.open(path, .pathOnly) else { return nil }
        return try? directory.mountID()
    }
}

/// Unmounts the FUSE file system at a directory, whoever mounted it: directly, or through `fusermount3` where that is not permitted.
public func unmountFuse(_ path: ByteString, lazily: Bool = false) throws(FuseError) {
    do throws(SystemError) {
        try FileDescriptor.unmount(path, lazily: lazily)
        return
    } catch {
        switch error.errno {
        case .invalidArgument: throw .notMounted(path)
        case .busy: throw .busy(path)
        case .notPermitted: try unmountByHelper(path, lazily, error)
        default: throw .system(error)
        }
    }
}

private func unmountByHelper(_ path: ByteString, _ lazily: Bool, _ reason: SystemError) throws(FuseError) {
    let helper = try FuseMount.runHelper(["-u", "-q"] + (lazily ? ["-z"] : []) + ["--", path], reason)
    let status: Int32
    do throws(SystemError) { status = try helper.wait() } catch { throw .system(error) }
    guard status != 0 else { return }
    // It says why only in words.
    throw lazily ? .noRights(reason) : .busy(path)
}
