import ArgumentParser
import ComposefsCommandSupport
import ComposefsLinuxSystem
import ComposefsOCI

struct Mount: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Mount an image's root file system.",
        discussion: """
            IMAGE may also be an EROFS image's identifier, or the name of one made by create-image. NAME@sha256:… and NAME@IDENTIFIER mount \
            only what has this manifest, config or EROFS image. In a repository with fs-verity the kernel refuses every changed byte; in one \
            without, the image is verified before it is mounted, and files are not.

            Set-user-ID programs, file capabilities and device nodes of the image have no effect unless --suid and --dev say so: an image may \
            come from anyone. A container runtime that takes the directory for a root file system needs --suid if programs such as sudo, su \
            or ping shall work in the container; it makes /dev itself, so it needs no --dev. A host that boots from the image needs both. \
            mount.composefs has the defaults of mount(8).

            A fresh --upperdir, empty and never used, gets the owner, mode, time and extended attributes of the image's root.

            --fuse takes no privileges: a process of its own serves the image until it is unmounted, and verifies every file when it is first \
            opened. It is also what is done where mounting is not permitted.
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

    @Flag(help: "Set-user-ID and set-group-ID bits and file capabilities have their effect.")
    var suid = false

    @Flag(help: "Device nodes have their effect.")
    var dev = false

    @Flag(help: "No program can be run from the mount.")
    var noexec = false

    @Flag(help: "Serve it with FUSE instead of letting the kernel mount it.")
    var fuse = false

    @Flag(help: "With FUSE: do not go to the background; say which files are damaged on standard error.")
    var foreground = false

    @Flag(help: "With FUSE: other users may look inside too. Who is not root needs user_allow_other in /etc/fuse.conf.")
    var allowOther = false

    @Flag(
        help: ArgumentHelp(
            "With FUSE: verify and open a file when it is first read, not when it is opened.",
            discussion: "Much faster for many small files; takes more memory, and a damaged file fails when it is read."))
    var lazyOpen = false

    @OptionGroup var global: GlobalOptions

    func validate() throws {
        guard (upperdir == nil) == (workdir == nil) else { throw ValidationError("--upperdir and --workdir need each other") }
        guard !fuse || (upperdir == nil && idmap == nil) else {
            throw ValidationError("--fuse takes neither --upperdir nor --idmap: put an overlay over the mount")
        }
    }

    func run() throws {
        if fuse || Serving.isServer { return try serve() }
        let store = try global.openStore(readOnly: true)
        do {
            try mount(store)
        } catch let error as MountError {
            guard case .noRights = error, upperdir == nil, idmap == nil else { throw error }
            global.note("\(error); serving the image with FUSE instead")
            return try serve()
        }
        if !store.repository.isSecure {
            global.note("the repository has no fs-verity: the image was verified, but files are not checked when they are read")
        }
    }
}

extension Mount {
    private func mount(_ store: Store) throws {
        try store.mount(
            image, at: directory, bootable: bootable,
            MountOptions(
                upperDirectory: upperdir, workDirectory: workdir,
                readWrite: upperdir != nil && !readOnly, idmap: idmap, attributes: attributes))
    }

    private var attributes: MountAttributes {
        var attributes = MountAttributes.withoutPrivileges
        if suid { attributes.remove(.noSetUserID) }
        if dev { attributes.remove(.noDevices) }
        if noexec { attributes.insert(.noExecute) }
        return attributes
    }

    /// Returns once the image is mounted, or in the foreground once it is unmounted.
    private func serve() throws {
        guard foreground || Serving.isServer else { return try Serving.start() }
        try Serving.run {
            // Not for reading only: a lease is written where that is possible.
            try global.openStore(checksOwner: false).serve(
                image, at: directory, bootable: bootable,
                ServeOptions(allowOther: allowOther, opensLazily: lazyOpen, attributes: attributes, report: { Output.error($0) }))
        }
    }
}
