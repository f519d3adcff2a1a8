public import ComposefsBootFormats
public import ComposefsBytes
import ComposefsEROFS
public import ComposefsHashing
public import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsRepository

// A unified kernel image is a stub, an EFI program, with sections for the kernel, its initial RAM disk and its command line. The firmware verifies the
// signature of the whole, and the command line has the ID of the root file system. Other programs make it: `ukify` of systemd if it is installed, else
// `objcopy` of binutils. What they made is read again before it gets its name.

/// Options of building a unified kernel image. Files are of this system, and replace what the image has.
public struct UnifiedKernelOptions: Sendable {
    /// What of the image is taken, by its name or path in the list of boot resources; by default the newest kernel.
    public var resource: ByteString?
    /// The kernel.
    public var kernel: ByteString?
    /// The initial RAM disk.
    public var initialRamDisk: ByteString?
    /// The os-release file.
    public var osRelease: ByteString?
    /// The stub: an EFI program that starts the kernel of its own sections.
    public var stub: ByteString = Self.defaultStub
    /// Kernel arguments, which replace those of the image's entry with the same keys.
    public var arguments = KernelCommandLine([])
    /// The extended attributes that the image for booting keeps.
    public var filtering = XattrFiltering.allowlistOnly
    /// Whether the kernel argument allows a repository without fs-verity. What such a machine runs can be changed on its disk.
    public var allowsInsecure = false

    public static let defaultStub: ByteString = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"

    public init() {}
}

/// A unified kernel image that was built.
public struct BuiltUnifiedKernel: Sendable {
    public var path: ByteString
    /// In bytes.
    public var size: UInt64
    /// The image for booting that the command line names.
    public var imageID: ObjectID
    public var commandLine: KernelCommandLine
    /// The kernel's version, if it is known.
    public var version: ByteString?
    /// The program that made it.
    public var program: ByteString
}

/// Why no unified kernel image can be built.
public enum UnifiedKernelError: Error, CustomStringConvertible {
    /// Neither program is installed; their names.
    case noProgram([ByteString])
    /// The program failed; its message is on standard error.
    case program(ByteString, status: Int32)
    /// The stub is not there.
    case noStub(ByteString)
    /// The stub, or what the program made, is no such program: the path, and why not.
    case executable(ByteString, ExecutableError)
    /// What the program made has another section than it was told to make.
    case differs(ByteString, section: ByteString)
    /// The sections would not fit into the addresses of an EFI program.
    case tooLarge(UInt64)
    /// A kernel argument with a control character.
    case invalidArgument(ByteString)
    /// The image has no os-release file, and none was given.
    case noOSRelease

    public var description: String {
        switch self {
        case .noProgram(let names):
            "none of the programs that make a unified kernel image is installed: \(names.map(\.description).joined(separator: ", "))"
        case .noStub(let path): "there is no EFI stub \(path)"
        case .program(let program, let status): "\(program) failed with status \(status)"
        case .executable(let path, let error): "\(path): \(error)"
        case .differs(let program, let section): "\(program) made a file whose section \(section) is not what it was told to make"
        case .tooLarge(let size): "the sections need \(size) bytes of memory, more than an EFI program can have"
        case .invalidArgument(let argument): "the kernel argument \(argument) has a control character"
        case .noOSRelease: "the image has no /usr/lib/os-release and no /etc/os-release"
        }
    }
}

extension ImageStore {
    /// Builds a unified kernel image whose command line names this image, and writes it to a file, which it replaces when it is whole and durable. The
    /// store is only read.
    ///
    /// - Parameters:
    ///   - image: a tag, a digest or the beginning of one, or the name of an image that was made with the transform for booting.
    ///   - path: the file.
    /// - Throws: `UnifiedKernelError`; `BootError` if the image has no kernel; as `prepareBoot`.
    public func buildUnifiedKernel(
        _ image: ByteString, at path: ByteString, _ options: UnifiedKernelOptions = UnifiedKernelOptions()
    ) throws -> BuiltUnifiedKernel {
        let target = try BootTarget(image, self)
        let boot = try unifiedKernelRoot(target, options.filtering)
        let parts = try UnifiedKernelParts(target.tree, options, self)
        let argument = ComposefsArgument(boot.id, boot.version == .v2 ? .v2 : .v1, allowsInsecure: options.allowsInsecure)
        let line = try parts.commandLine(argument, changes: options.arguments)
        let built = try UnifiedKernelFile(path).build(parts, line, stub: options.stub)
        return BuiltUnifiedKernel(
            path: path, size: built.size, imageID: boot.id, commandLine: line, version: parts.version, program: built.program)
    }

    /// The image for booting that the command line names.
    private func unifiedKernelRoot(_ target: BootTarget, _ filtering: XattrFiltering) throws -> (id: ObjectID, version: ErofsVersion) {
        if let stored = target.stored {
            let version = repository.erofsFormats.default
            return (try stored.bootImageID(version, filtering) ?? computedBootImage(of: stored, filtering), version)
        }
        guard let id = target.namedID else { preconditionFailure("an image has a manifest or a name") }
        return (id, try erofsImage(id).version)
    }
}

extension UnifiedKernelParts {
    /// The image's kernel arguments with the caller's, after the one that names the root file system.
    fileprivate func commandLine(_ argument: ComposefsArgument, changes: KernelCommandLine) throws -> KernelCommandLine {
        var line = arguments
        for argument in changes.arguments {
            guard !argument.bytes.contains(where: { $0 < 0x20 || $0 == 0x7f }) else { throw UnifiedKernelError.invalidArgument(argument) }
            line.set(argument)
        }
        // The image's own entry may name another image.
        line.arguments.removeAll { ((try? ComposefsArgument($0)) ?? nil) != nil }
        line.arguments.insert(argument.text, at: 0)
        return line
    }
}
