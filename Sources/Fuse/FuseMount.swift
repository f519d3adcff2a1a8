public import ComposefsBytes
public import ComposefsLinuxSystem

/// Options of a FUSE mount.
public struct FuseMountOptions: Sendable, Hashable {
    /// The source of the mount in the kernel's tables (`/proc/self/mountinfo`).
    public var source: ByteString
    /// Allows access by users other than the one who mounts. Unprivileged users need `user_allow_other` in `/etc/fuse.conf` for this.
    public var allowOther: Bool
    /// The attributes of the mount: `.noSetUserID` (nosuid), `.noDevices` (nodev), `.noExecute` (noexec) and so on. It is always read-only.
    /// Only root can mount without the first two, or with attributes other than noexec and noatime.
    public var attributes: MountAttributes

    public init(
        source: ByteString = "composefs", allowOther: Bool = false, attributes: MountAttributes = .withoutPrivileges
    ) {
        self.source = source
        self.allowOther = allowOther
        self.attributes = attributes
    }

    /// The attributes as options of `fusermount3`; nil if it does not support them.
    var helperAttributes: ByteString? {
        let known: MountAttributes = [.readOnly, .noSetUserID, .noDevices, .noExecute, .noAccessTime]
        guard attributes.isSuperset(of: .withoutPrivileges), attributes.isSubset(of: known) else { return nil }
        return "ro,nosuid,nodev" + (attributes.contains(.noExecute) ? ",noexec" : "")
            + (attributes.contains(.noAccessTime) ? ",noatime" : "")
    }
}

/// A read-only FUSE file system at a directory, which has no server yet.
///
/// A process with the privilege to mount does so directly; for others `fusermount3` mounts. `attach` makes a direct mount visible, so that
/// an earlier failure leaves nothing behind.
public struct FuseMount: ~Copyable, Sendable {
    private let device: FuseDevice
    /// Nil if the helper attached the mount.
    private var detached: FileDescriptor?
    private let target: FileDescriptor
    private let options: FuseMountOptions

    /// Creates the file system.
    ///
    /// - Parameter target: An existing directory.
    public init(at target: ByteString, _ options: FuseMountOptions = FuseMountOptions()) throws(FuseError) {
        let directory = try Self.openTarget(target)
        let made = try Self.make(at: directory.kernelPath, options)
        self.init(made, at: directory, options)
    }

    // Swift 6.2 destroys properties twice if an initialiser of a noncopyable type throws after it set one of them, and an optional `var` is
    // set from the start.
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

    /// A descriptor with which to serve the file system.
    public borrowing func connection() throws(FuseError) -> FuseDevice {
        do throws(SystemError) { return try device.duplicate() } catch { throw .system(error) }
    }

    /// Makes the mount visible and returns it, so that the caller can unmount it.
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

    /// Discards the file system. Unmounts it if the helper attached it: nothing would serve it.
    public consuming func abandon() {
        guard detached == nil else { return }
        try? unmountFuse(target.kernelPath, lazily: true)
    }

    private struct Made: ~Copyable {
        var device: FuseDevice
        /// Nil if the helper attached the mount.
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
            // The kernel checks permissions and ACLs.
            try context.setFlag("default_permissions")
            if options.allowOther { try context.setFlag("allow_other") }
            try context.create()
            return Made(device: device, mount: try context.mount(options.attributes.union(.readOnly)))
        } catch {
            if error.errno == .notPermitted { throw .noRights(error) }
            throw .mount(error, kernel: context.messages())
        }
    }

    /// fusermount3 (libfuse) mounts with root privileges and returns the device over the socket that `_FUSE_COMMFD` names.
    private static func makeByHelper(
        at target: ByteString, _ options: FuseMountOptions, _ reason: SystemError
    ) throws(FuseError) -> FuseDevice {
        guard let attributes = options.helperAttributes else { throw .attributesNeedRoot(reason) }
        let list = attributes + ",default_permissions,subtype=composefs,fsname="
        let arguments: [ByteString] = ["-o", list + options.source + (options.allowOther ? ",allow_other" : ""), "--", target]
        let sockets: SocketPair
        do throws(SystemError) { sockets = try FileDescriptor.socketPair() } catch { throw .system(error) }
        let helper = try runHelper(arguments, environment: ["_FUSE_COMMFD=3"], inherited: sockets.second.raw, reason)
        // After this process closes its copy, only the helper has the other end, and it closes when the helper ends.
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

/// A mounted FUSE file system.
public struct AttachedFuseMount: Sendable, Hashable {
    /// The directory as the kernel names it.
    public let path: ByteString
    /// The mount ID in the kernel's tables; nil if they do not list the mount.
    let number: UInt64?

    /// Unmounts the file system. If `lazily`, also when it is in use; it then ends with its last user, or with its server.
    public func unmount(lazily: Bool = false) throws(FuseError) {
        // The path may have been renamed, or another process may have unmounted the file system and mounted another one there.
        let mountPoint = (number.flatMap { try? FileDescriptor.path(ofMount: $0) } ?? nil) ?? path
        guard Self.number(at: mountPoint) == number else { throw .notMounted(path) }
        try unmountFuse(mountPoint, lazily: lazily)
    }

    fileprivate static func number(at path: ByteString) -> UInt64? {
        guard let directory = try? FileDescriptor.open(path, .pathOnly) else { return nil }
        return try? directory.mountID()
    }
}

/// Unmounts the FUSE file system at a directory, whichever user mounted it: directly, or through `fusermount3` if the process may not.
public func unmountFuse(_ path: ByteString, lazily: Bool = false) throws(FuseError) {
    do throws(SystemError) {
        try FileDescriptor.unmountServed(path, lazily: lazily)
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
    // fusermount3 reports the reason only as text.
    throw lazily ? .noRights(reason) : .busy(path)
}
