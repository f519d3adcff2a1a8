import ArgumentParser
import ComposefsCommandSupport
import ComposefsLinuxSystem
import ComposefsOCI

struct BootSealKernel: ParsableCommand, ConfinedCommand, ImageCommand {
    /// The programs read their own libraries.
    static var rights: CommandRights? {
        CommandRights(
            .reads, programs: "`ukify` or `objcopy`", limitsPaths: false, capabilities: [.dacOverride, .dacReadSearch, .fileOwner])
    }

    static let configuration = CommandConfiguration(
        commandName: "seal-uki", abstract: "Build a unified kernel image that boots this image and no other.",
        discussion: """
            The command line of the unified kernel image has the kernel argument with the identifier of the image for booting, which does not depend \
            on /boot: so the file can be added to the image afterwards, in /boot/EFI/Linux. Sign it for Secure Boot with sbsign or ukify. The argument \
            demands a repository with fs-verity, unless --allow-insecure is given.

            ukify makes the file if it is installed, else objcopy (package binutils). The result is read again and compared with its parts. Kernel and \
            initial RAM disk are those of the image, as `cfsoci boot entries` lists them; the stub is of this system (package systemd-boot-efi).

            Example: cfsoci boot seal-uki debian --cmdline "root=/dev/vda2 rw quiet" -o debian.efi
            """)

    @Argument(help: "The image.", completion: .imageName)
    var image: ByteString

    @Option(name: .shortAndLong, help: ArgumentHelp("The unified kernel image, which is replaced.", valueName: "file"), completion: .file())
    var output: ByteString

    @Option(
        help: ArgumentHelp(
            "Which kernel of the image, by its name or path in `cfsoci boot entries`; by default the newest.", valueName: "name"))
    var kernel: ByteString?

    @Option(help: ArgumentHelp("Another kernel, of this system.", valueName: "file"), completion: .file())
    var linux: ByteString?

    @Option(help: ArgumentHelp("Another initial RAM disk, of this system.", valueName: "file"), completion: .file())
    var initrd: ByteString?

    @Option(help: ArgumentHelp("Another os-release file, of this system.", valueName: "file"), completion: .file())
    var osRelease: ByteString?

    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp(
            "Kernel arguments; may be repeated. They replace those of the image's entry with the same keys.", valueName: "arguments"))
    var cmdline: [ByteString] = []

    @Option(help: ArgumentHelp("The EFI stub.", valueName: "file"), completion: .file())
    var stub: ByteString = UnifiedKernelOptions.defaultStub

    @Option(help: ArgumentHelp("Which extended attributes are kept.", valueName: "allowlist-only|keep-user-xattrs"))
    var xattrs: XattrMode = .allowlistOnly

    @Flag(help: "Let it boot from a repository without fs-verity, whose files can be changed unnoticed.")
    var allowInsecure = false

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    var namedImage: ByteString? { image }

    func run() throws {
        let store = try global.openStore(Self.rights, readOnly: true) { $0.runsPrograms = true }
        var options = UnifiedKernelOptions()
        options.resource = kernel
        options.kernel = linux
        options.initialRamDisk = initrd
        options.osRelease = osRelease
        options.stub = stub
        options.arguments = KernelCommandLine(cmdline.flatMap { KernelCommandLine(parsing: $0.bytes).arguments })
        options.filtering = xattrs.filtering
        options.allowsInsecure = allowInsecure
        try UnifiedKernelReport(built: store.images.buildUnifiedKernel(image, at: output, options)).show(asJSON: json)
    }
}

private struct UnifiedKernelReport: CommandReport {
    var built: BuiltUnifiedKernel

    var lines: [String] {
        [
            "image  \(built.imageID.hex)", "file  \(Output.printable(built.path))  \(built.size)",
            "cmdline  \(Output.printable(ByteString(built.commandLine.bytes)))",
        ]
    }

    var json: JSONValue {
        [
            "imageId": .string(built.imageID.hex), "path": .string(built.path.jsonText), "size": .integer(Int64(clamping: built.size)),
            "options": .array(built.commandLine.arguments.map { .string($0.jsonText) }), "version": .optional(built.version),
            "program": .string(built.program.jsonText),
        ]
    }
}
