import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsMounting
import ComposefsRepository

/// Carries out a `RootPlan`.
///
/// Kernels before 6.15 attach nothing to a mount that is not attached itself, and take no such mount as a layer of an overlay. So everything is
/// mounted on top of the disk, which stays what it was below. A copy of these mounts takes the disk's place only when all of them are there.
/// After a failure, they are unmounted, and the disk is visible again.
final class RootBuilder {
    private let sysroot: ByteString
    private let plan: RootPlan
    /// The disk, whatever is mounted on top of it.
    private let disk: FileDescriptor
    /// Its mounts before anything was mounted on top of it.
    private let copyOfDisk: FileDescriptor
    /// The number of mounts on top of the disk, without those below them.
    private var height = 0
    /// The root of the image. The layers of overlays are its directories: the kernel stacks no more than two overlays, and a root in memory is
    /// the second one.
    private var imageRoot: FileDescriptor?

    static func build(_ plan: RootPlan, _ image: borrowing BootedImage, sysroot: ByteString) throws(Refusal.Cause) {
        let disk = try system { () throws(SystemError) in try FileDescriptor.open(sysroot, directory) }
        let copy = try system { () throws(SystemError) in try disk.copyMounts() }
        let builder = RootBuilder(plan, sysroot, disk, copy)
        do throws(Refusal.Cause) {
            for step in plan.steps { try builder.carryOut(step, image) }
        } catch {
            try? builder.unmount(downTo: 0)
            throw error
        }
    }

    private init(_ plan: RootPlan, _ sysroot: ByteString, _ disk: consuming FileDescriptor, _ copyOfDisk: consuming FileDescriptor) {
        self.plan = plan
        self.sysroot = sysroot
        self.disk = disk
        self.copyOfDisk = copyOfDisk
    }

    private static let directory: OpenFlags = [.readOnly, .directory]

    private func carryOut(_ step: RootPlan.Step, _ image: borrowing BootedImage) throws(Refusal.Cause) {
        switch step {
        case .image: try mountRoot(image)
        case .transientRoot: try push(try overlayInMemory(of: try top(), ""))
        case .disk: try mountDisk()
        case .directory(let name, let kind): try mount(name, kind)
        case .replacement: try replace()
        }
    }

    // MARK: Steps

    private func mountRoot(_ image: borrowing BootedImage) throws(Refusal.Cause) {
        let objects: FileDescriptor
        do throws(RepositoryError) { objects = try image.repository.openObjectsDirectory() } catch { throw .repository(error) }
        // The root file system of a machine has set-user-ID programs and may have device nodes.
        let options = MountOptions(source: MountOptions.source(ofImage: ByteString(image.opened.id.hex)), attributes: [])
        let verity = image.repository.isSecure ? VerityChecking.required : .none
        do throws(MountError) {
            try mountImage(image.opened.file, objects: objects, verity: verity, at: sysroot, options: options)
        } catch {
            throw .mount(error)
        }
        height += 1
        imageRoot = try top()
    }

    private func mountDisk() throws(Refusal.Cause) {
        guard let place = try openIfPresent("sysroot", in: try top()) else { return }
        try system { () throws(SystemError) in try copyOfDisk.attachMount(to: place) }
    }

    private func mount(_ name: ByteString, _ kind: SetupRootConfiguration.Kind) throws(Refusal.Cause) {
        guard let place = try openIfPresent(name, in: try top()) else { throw .noDirectory(name) }
        switch kind {
        case .none: break
        case .bind:
            let state = try state(name)
            try system { () throws(SystemError) in try state.copyMounts().attachMount(to: place) }
        case .overlay:
            let overlay = try overlayOfState(name, try directory(name))
            try system { () throws(SystemError) in try overlay.attachMount(to: place) }
        case .transient:
            let overlay = try overlayInMemory(of: try directory(name), name)
            try system { () throws(SystemError) in try overlay.attachMount(to: place) }
        }
    }

    /// The copy is complete before anything is unmounted.
    private func replace() throws(Refusal.Cause) {
        let root = try top()
        try system { () throws(SystemError) in
            let copy = try root.copyMounts()
            try unmount(downTo: 0)
            // The disk is also at /sysroot of the image. If it is a plain directory here, there is nothing to unmount.
            do throws(SystemError) {
                try FileDescriptor.unmount(sysroot, lazily: true)
            } catch {
                guard error.errno == .invalidArgument else { throw error }
            }
            try copy.attachMount(at: sysroot)
        }
    }

    // MARK: Mounts on top of the disk

    /// The directory on top.
    private func top() throws(Refusal.Cause) -> FileDescriptor {
        try system { () throws(SystemError) in try FileDescriptor.open(sysroot, Self.directory) }
    }

    private func push(_ mount: consuming FileDescriptor) throws(Refusal.Cause) {
        do throws(SystemError) { try mount.attachMount(at: sysroot) } catch { throw .system(error) }
        height += 1
    }

    private func unmount(downTo wanted: Int) throws(SystemError) {
        while height > wanted {
            try FileDescriptor.unmount(sysroot, lazily: true)
            height -= 1
        }
    }

    /// A directory of the image.
    private func directory(_ name: ByteString) throws(Refusal.Cause) -> FileDescriptor {
        guard let raw = imageRoot?.raw else { throw .noDirectory(name) }
        let root = try system { () throws(SystemError) in try FileDescriptor.duplicate(of: raw) }
        guard let found = try openIfPresent(name, in: root) else { throw .noDirectory(name) }
        return found
    }

    /// A directory below another. Links of the image lead to other places in it.
    private func openIfPresent(_ name: ByteString, in root: borrowing FileDescriptor) throws(Refusal.Cause) -> FileDescriptor? {
        do throws(SystemError) {
            return try root.open(at: name, Self.directory, resolve: .inRoot)
        } catch {
            guard error.errno == .noEntry else { throw .system(error) }
            return nil
        }
    }

    // MARK: State

    /// A directory of the deployment. Its links may lead to other places on the disk: deployments share `/var`.
    private func state(_ name: ByteString) throws(Refusal.Cause) -> FileDescriptor {
        do throws(SystemError) {
            return try disk.open(at: plan.deployment + "/" + name, Self.directory, resolve: .beneath)
        } catch {
            guard error.errno == .noEntry else { throw .system(error) }
            throw .noState(sysroot + "/" + plan.deployment + "/" + name)
        }
    }

    private func overlayOfState(_ name: ByteString, _ lower: borrowing FileDescriptor) throws(Refusal.Cause) -> FileDescriptor {
        let isReadOnly = try system { () throws(SystemError) in try disk.fileSystemStatus().isReadOnly }
        guard !isReadOnly else { throw .readOnlyDisk(sysroot, needed: "/" + name) }
        return try overlay(of: lower, name, in: try state(name), source: "overlay")
    }

    /// A writable overlay of a directory, whose changes are in memory.
    private func overlayInMemory(of lower: borrowing FileDescriptor, _ name: ByteString) throws(Refusal.Cause) -> FileDescriptor {
        let below = height
        let memory: FileDescriptor
        do throws(MountError) { memory = try mountMemory(source: "transient") } catch { throw .mount(error) }
        // The kernel takes only attached directories as layers. The overlay keeps them when they are unmounted.
        try push(memory)
        let overlay = try overlay(of: lower, name, in: try top(), source: "transient")
        try system { () throws(SystemError) in try unmount(downTo: below) }
        return overlay
    }

    /// An overlay with the directories `upper` and `work` in `directory`, which are made if they are missing.
    private func overlay(
        of lower: borrowing FileDescriptor, _ name: ByteString, in directory: borrowing FileDescriptor, source: ByteString
    ) throws(Refusal.Cause) -> FileDescriptor {
        do throws(SystemError) {
            try makeUpper(for: lower, at: "upper", in: directory)
            try directory.makeDirectoryIfMissing(at: "work", mode: 0o700)
        } catch {
            throw .system(error)
        }
        let upper = try open("upper", in: directory)
        let work = try open("work", in: directory)
        do throws(MountError) {
            return try mountWritable(over: lower, upper: upper, work: work, source: source)
        } catch {
            if case .overlay(let system, let message) = error { throw .overlay("/" + name, system, kernel: message) }
            throw .mount(error)
        }
    }

    private func open(_ name: ByteString, in directory: borrowing FileDescriptor) throws(Refusal.Cause) -> FileDescriptor {
        do throws(SystemError) { return try directory.open(at: name, [Self.directory, .noFollow]) } catch { throw .system(error) }
    }
}

private func system<Value: ~Copyable>(_ body: () throws(SystemError) -> Value) throws(Refusal.Cause) -> Value {
    do throws(SystemError) { return try body() } catch { throw .system(error) }
}
