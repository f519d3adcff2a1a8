// SetupRoot: what `cfsoci-setup-root` does in the initial RAM disk, before the first program of the system runs. It puts the image that the
// kernel's command line names, with the state of its deployment, in the place of the disk that holds the repository.
//
// The module is small on purpose. It reads no OCI documents, has no network code and no argument parser, and starts in about a millisecond.
//
// - `SetupRootArguments` are the options, `SetupRootConfiguration` is the file with settings, and the kernel arguments are those of BootFormats.
// - `RootPlan` is the list of mounts that follows from them, without I/O; `RootBuilder` carries it out.
// - `Refusal` is the one line that a boot that stops leaves in the kernel's log.
// - `MountProgram`: the same program under the name `mount.composefs`.

import ComposefsBootFormats
public import ComposefsBytes
import ComposefsCVersion
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsMounting
import ComposefsRepository

/// The program.
public enum SetupRoot {
    static let name = "cfsoci-setup-root"

    /// The release, as `--version` prints it.
    static var version: String { String(cString: cfsoci_release()) }

    /// Runs the program with the arguments of the process, the first of which is its name.
    ///
    /// - Returns: the exit status: 0 if the root file system is in place, 1 if it was refused, 64 for wrong usage. Under the name
    ///   `mount.composefs`, those of mount(8).
    public static func run(_ all: [ByteString]) -> Int32 {
        Host.fillStandardDescriptors()
        if let arguments = HelperInvocation.arguments(all) { return MountProgram.run(arguments) }
        let arguments: SetupRootArguments
        do throws(SetupRootArguments.Fault) {
            arguments = try SetupRootArguments(Array(all.dropFirst()))
        } catch {
            KernelLog.print("\(name): \(printable(error.description, limit: 900)); \(name) --help shows the options")
            return 64
        }
        if let text = arguments.answer { return KernelLog.write(text + "\n", to: .output) ? 0 : 1 }
        do throws(Refusal) {
            let booted = try setUp(arguments)
            KernelLog.tell(.info, "\(name): \(booted)")
            return 0
        } catch {
            KernelLog.tell(.error, "\(name): \(error.line)")
            return 1
        }
    }

    /// Mounts the root file system.
    ///
    /// - Returns: what was mounted, for people.
    static func setUp(_ arguments: SetupRootArguments) throws(Refusal) -> String {
        linkVolatileRoot()
        let configuration = try SetupRootConfiguration.read(at: arguments.configuration)
        for warning in configuration.warnings { KernelLog.tell(.warning, "\(name): \(warning)") }
        let images = try named(try arguments.kernelArguments())
        var missing: [String] = []
        for image in images {
            guard let opened = try open(image, arguments.sysroot) else {
                missing.append("\(image): \(arguments.sysroot)/composefs has no such image")
                continue
            }
            let plan = RootPlan(image, configuration)
            do throws(Refusal.Cause) {
                try RootBuilder.build(plan, opened, sysroot: arguments.sysroot)
            } catch {
                throw Refusal(image, error)
            }
            return "\(image) is the root file system; the kernel \(opened.repository.isSecure ? "checks" : "does not check") its files"
        }
        throw Refusal(missing.joined(separator: "; "))
    }

    /// The images that the kernel arguments name.
    static func named(_ line: KernelCommandLine) throws(Refusal) -> [ComposefsArgument] {
        let images: [ComposefsArgument]
        do throws(ComposefsArgumentError) {
            images = try line.composefsArguments()
        } catch {
            throw Refusal(error.description)
        }
        guard !images.isEmpty else {
            throw Refusal("no kernel argument composefs= or composefs.digest= names an image; `cfsoci boot karg IMAGE` prints it")
        }
        return images
    }

    /// The image of an argument; nil if the repository does not have it.
    private static func open(_ image: ComposefsArgument, _ sysroot: ByteString) throws(Refusal) -> BootedImage? {
        do throws(RepositoryError) {
            return try BootedImage(image, in: sysroot + "/composefs")
        } catch {
            if case .imageMissing = error { return nil }
            throw Refusal(image, .repository(error))
        }
    }

    /// systemd finds the disk of an automatically mounted root through this link. An overlay has no disk, so it does not make the link itself:
    /// systemd issue 35017. Whatever fails here is no reason to stop the boot.
    private static func linkVolatileRoot() {
        guard let status = try? FileDescriptor.currentDirectory.status(at: "/dev/gpt-auto-root", follow: true), status.kind == .blockDevice
        else { return }
        let device = ByteString("/dev/block/\(status.deviceMajor):\(status.deviceMinor)")
        try? FileDescriptor.currentDirectory.symlink(target: device, at: "/run/systemd/volatile-root")
    }
}

/// An image of a repository, verified, with the repository open.
struct BootedImage: ~Copyable {
    let argument: ComposefsArgument
    let repository: Repository
    let opened: OpenedImage

    /// - Throws: `RepositoryError.imageMissing` if there is no such image.
    init(_ argument: ComposefsArgument, in path: ByteString) throws(RepositoryError) {
        let options = OpenOptions(requireVerity: !argument.allowsInsecure, readOnly: true, algorithm: argument.id.algorithm)
        let repository = try Repository.open(path, options)
        let opened = try repository.openImage(ByteString(argument.id.hex))
        self.argument = argument
        self.repository = repository
        self.opened = opened
    }
}
