import ArgumentParser
import ComposefsCommandSupport
import ComposefsLinuxSystem
import ComposefsOCI

struct Mount: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mount", abstract: "Mount an image's root file system, or list what is mounted.",
        discussion: """
            Without arguments, lists the mounted images of all repositories, in all mount namespaces that the user may look into; -q prints mount \
            points only. Names are those of this repository.

            IMAGE may also be the identifier of an EROFS image, or the name of one made by create-image. NAME@sha256:… and NAME@IDENTIFIER \
            mount NAME only if it has this manifest, config or EROFS image. In a repository with fs-verity the kernel refuses every changed \
            byte. Without fs-verity the image is verified before it is mounted, but its files are not.

            Set-user-ID programs, file capabilities and device nodes of the image have no effect without --suid and --dev, because its author \
            may not be trusted. A container runtime that uses the directory as a root file system needs --suid if programs such as sudo, su or \
            ping are to work in the container; it makes /dev itself, so it needs no --dev. A host that boots from the image needs both. \
            mount.composefs has the defaults of mount(8).

            A new --upperdir, empty and never used, gets the owner, mode, time and extended attributes of the image's root.

            --fuse needs no privileges: a separate process serves the image until it is unmounted, and verifies every file when it is first \
            opened. It is also used if mounting is not permitted.
            """)

    @Argument(help: "The image.", completion: .imageName)
    var image: ByteString?

    @Argument(help: "The mount point, an existing directory.", completion: .directory)
    var directory: ByteString?

    @Flag(help: "Mount the image for booting.")
    var bootable = false

    @Flag(
        help: ArgumentHelp(
            "Refuse an image that is not sealed: whose config, with --bootable also its manifest, does not state the digest of what is mounted."
        ))
    var requireSeal = false

    @Option(
        help: ArgumentHelp("The directory for changes, which makes the mount writable; needs --workdir.", valueName: "dir"),
        completion: .directory)
    var upperdir: ByteString?

    @Option(
        help: ArgumentHelp("The kernel's working space, on the same file system as --upperdir.", valueName: "dir"), completion: .directory)
    var workdir: ByteString?

    @Option(
        help: ArgumentHelp("A user namespace, /proc/PID/ns/user, whose ids the owners are mapped to.", valueName: "path"),
        completion: .file())
    var idmap: ByteString?

    @Flag(help: "Mount --upperdir read-only.")
    var readOnly = false

    @Flag(help: "Let set-user-ID and set-group-ID bits and file capabilities take effect.")
    var suid = false

    @Flag(help: "Let device nodes take effect.")
    var dev = false

    @Flag(help: "Do not allow programs of the mount to be run.")
    var noexec = false

    @Flag(help: "Serve the image with FUSE instead of a kernel mount.")
    var fuse = false

    @Flag(help: "With FUSE: stay in the foreground, and report damaged files on standard error.")
    var foreground = false

    @Flag(help: "With FUSE: allow access by other users. Users other than root need user_allow_other in /etc/fuse.conf.")
    var allowOther = false

    @Flag(
        help: ArgumentHelp(
            "With FUSE: verify and open a file when it is first read, not when it is opened.",
            discussion: "Much faster for many small files. It needs more memory, and a damaged file fails when it is read."))
    var lazyOpen = false

    @OptionGroup(title: "List options") var form: FormatOptions

    @Flag(help: "Print the list as JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func validate() throws {
        if image == nil {
            _ = try fields()
        } else {
            guard directory != nil else {
                throw ValidationError("mount needs an IMAGE and a DIRECTORY, or neither to list what is mounted")
            }
            guard !json, form.format == nil else { throw ValidationError("--json and --format are for the list of what is mounted") }
        }
        guard (upperdir == nil) == (workdir == nil) else { throw ValidationError("--upperdir and --workdir need each other") }
        guard !fuse || (upperdir == nil && idmap == nil) else {
            throw ValidationError("--fuse takes neither --upperdir nor --idmap: put an overlay over the mount")
        }
    }

    private func fields() throws -> [String]? { try form.fields(of: MountList.fields, json: json) }

    func run() throws {
        guard let image, let directory else { return try list() }
        if fuse || Serving.isServer { return try serve(image, at: directory) }
        // Not opened for reading only: the use of the image is recorded if possible.
        let store = try global.openStoreUnchanged(Self.isPrivileged ? .mounting : nil) { $0.runsPrograms = true }
        do {
            try mount(image, at: directory, store)
        } catch let error as MountError {
            guard case .noRights = error, upperdir == nil, idmap == nil else { throw error }
            global.note("\(error); serving the image with FUSE instead")
            return try serve(image, at: directory)
        }
        if !store.repository.isSecure {
            global.note("the repository has no fs-verity: the image was verified, but files are not checked when they are read")
        }
    }
}

extension Mount {
    private func list() throws {
        var names: [ByteString: [ByteString]] = [:]
        do {
            names = try MountList.names(in: try global.openStore(Self.listing, readOnly: true))
        } catch let error as CommandError where error.code == .noSuchRepository {
            // Other repositories' images may be mounted.
            try global.confine(Self.listing, repository: nil)
        }
        let list = MountList(mounts: try MountList.mounts(), names: names)
        if let fields = try fields() { return try FormatOptions.show(fields, list.documents) }
        if global.printsNamesOnly, !json { return try FormatOptions.show(["directory"], list.documents) }
        try list.show(asJSON: json)
    }

    /// Whether nothing depends on the set-user-ID bit of fusermount3.
    static var isPrivileged: Bool { Host.hasCapability(.systemAdmin) }

    private func mount(_ image: ByteString, at directory: ByteString, _ store: Store) throws {
        try store.mount(
            image, at: directory, bootable: bootable, requiresSeal: requireSeal,
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

    /// Returns once the image is mounted; in the foreground once it is unmounted.
    private func serve(_ image: ByteString, at directory: ByteString) throws {
        guard foreground || Serving.isServer else { return try Serving.start() }
        try Serving.run {
            // Not opened for reading only: a lease is written if possible.
            try global.openStoreUnchanged(Self.isPrivileged ? .serving : nil) { confinement in
                // Elsewhere mounting may be refused all the same, and fusermount3 may do it.
                confinement.runsPrograms = !Host.isInFirstUserNamespace
            }.serve(
                image, at: directory, bootable: bootable, requiresSeal: requireSeal,
                ServeOptions(allowOther: allowOther, opensLazily: lazyOpen, attributes: attributes, report: { Output.error($0, .damaged) }))
        }
    }
}
