import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

struct BootArgument: ParsableCommand, ConfinedCommand, ImageCommand {
    static var rights: CommandRights? { .reading() }

    static let configuration = CommandConfiguration(
        commandName: "karg", abstract: "Print the kernel argument that boots an image.",
        discussion: """
            The image for booting must be recorded: `cfsoci boot image` or `cfsoci pull --bootable` does that. The argument allows a repository \
            without fs-verity, by a question mark, only if this repository has none.
            """)

    @Argument(help: "The image.", completion: .imageName)
    var image: ByteString

    @OptionGroup var version: VersionOption

    @Option(help: ArgumentHelp("Which extended attributes are kept.", valueName: "allowlist-only|keep-user-xattrs"))
    var xattrs: XattrMode = .allowlistOnly

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    var namedImage: ByteString? { image }

    func run() throws {
        let store = try global.openStore(Self.rights, readOnly: true)
        let version = try version.version(default: store.repository.erofsFormats.default)
        let found = try store.images.open(image).image
        guard found.isContainer else { throw ImageStoreError.isArtifact(found.manifestDigest) }
        guard let id = found.bootImageID(version, xattrs.filtering) else {
            throw ImageStoreError.noErofsImage(config: found.configDigest, version, bootable: true)
        }
        let boot = BootImage(id: id, version: version, filtering: xattrs.filtering)
        try KernelArgument(image: boot, text: store.kernelArgument(for: boot).text).show(asJSON: json)
    }
}

private struct KernelArgument: CommandReport {
    var image: BootImage
    var text: ByteString

    var lines: [String] { [Output.printable(text)] }

    var json: JSONValue {
        var document = image.json
        document["kernelArgument"] = .string(text.jsonText)
        return document
    }
}
