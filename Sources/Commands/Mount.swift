import ArgumentParser
import ComposefsOCI

struct Mount: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Mount an image's root file system.",
        discussion: """
            IMAGE may also be an EROFS image's identifier, or the name of one made by create-image. NAME@sha256:… and NAME@IDENTIFIER mount \
            only what has this manifest, config or EROFS image. In a repository with fs-verity the kernel refuses every changed byte; in one \
            without, the image is verified before it is mounted, and files are not.
            """)

    @Argument(help: "The image.")
    var image: ByteString

    @Argument(help: "Where: an existing directory.")
    var directory: ByteString

    @Flag(help: "The image for booting.")
    var bootable = false

    @Option(help: ArgumentHelp("Takes what is changed, and makes the mount writable; needs --workdir.", valueName: "dir"))
    var upperdir: ByteString?

    @Option(help: ArgumentHelp("The kernel's working space, on the same file system as --upperdir.", valueName: "dir"))
    var workdir: ByteString?

    @Option(help: ArgumentHelp("A user namespace, /proc/PID/ns/user, whose ids the owners are mapped to.", valueName: "path"))
    var idmap: ByteString?

    @Flag(help: "Show what --upperdir holds, but let nobody change it.")
    var readOnly = false

    @OptionGroup var global: GlobalOptions

    func validate() throws {
        guard (upperdir == nil) == (workdir == nil) else { throw ValidationError("--upperdir and --workdir need each other") }
    }

    func run() throws {
        let store = try global.openStore(readOnly: true)
        try store.mount(
            image, at: directory, bootable: bootable,
            MountOptions(
                upperDirectory: upperdir, workDirectory: workdir,
                readWrite: upperdir != nil && !readOnly, idmap: idmap))
        if !store.repository.isSecure {
            global.note("the repository has no fs-verity: the image was verified, but files are not checked when they are read")
        }
    }
}

struct Unmount: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "umount", abstract: "Unmount an image.",
        discussion: "Also one that another composefs tool mounted, with its EROFS part. What is no image is left to umount(8).")

    @Argument(help: "Where it is mounted.")
    var directory: ByteString

    @Flag(name: .shortAndLong, help: "Detach it even where it is in use; it ends with its last user.")
    var lazy = false

    @OptionGroup var global: GlobalOptions

    func run() throws { try unmount(directory, lazily: lazy) }
}
