import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsMounting
import ComposefsRepository

/// `mount.composefs` for systems that only mount: what the program of that name in cfsoci does, except that images in a repository have no names
/// of registries.
enum MountProgram {
    private static let name = HelperInvocation.name

    /// - Returns: the exit status, as that of mount(8).
    static func run(_ arguments: [ByteString]) -> Int32 {
        do {
            let invocation = try HelperInvocation(arguments)
            if invocation.isHelp || invocation.isVersion {
                let usage = HelperInvocation.usage(names: "an image ID, or a name in images/refs")
                let text = invocation.isHelp ? usage : "\(name) (cfsoci) \(SetupRoot.version)"
                return KernelLog.write(text + "\n", to: .output) ? 0 : 1
            }
            try invocation.enterNamespace()
            try invocation.run(note: KernelLog.print) { options, digest in try mountNamed(invocation, options, digest) }
            return 0
        } catch let error as HelperInvocation.UsageError {
            KernelLog.print("\(name): \(error); \(name) --help shows the options")
            return HelperInvocation.status(of: error)
        } catch {
            KernelLog.print("\(name): \(printable("\(error)", limit: 1000))")
            if case RepositoryError.system(let system) = error { return HelperInvocation.status(of: system) }
            return HelperInvocation.status(of: error)
        }
    }

    private static func mountNamed(
        _ invocation: HelperInvocation, _ options: MountOptions, _ digest: ObjectID?
    ) throws -> (image: ObjectID, isChecked: Bool) {
        guard !invocation.options.isBootable else {
            throw HelperInvocation.UsageError("boot images have no names here: give the image ID instead of the option bootable")
        }
        let path = invocation.options.repository ?? ""
        // Opening writes nothing, except in a repository without meta.json, which only the large program upgrades.
        let repository = try Repository.open(path, OpenOptions(requireVerity: invocation.options.verity == .required, readOnly: true))
        let opened = try repository.openImage(invocation.source)
        if let digest, digest != opened.id {
            throw MountError.otherImage(invocation.source, found: opened.id.hex, wanted: digest.hex)
        }
        guard !invocation.isFake else { return (opened.id, repository.isSecure) }
        var options = options
        if options.source == MountOptions().source { options.source = MountOptions.source(ofImage: ByteString(opened.id.hex)) }
        let objects = try repository.openObjectsDirectory()
        try mountImage(
            opened.file, objects: objects, verity: repository.isSecure ? .required : .none, at: invocation.target, options: options)
        return (opened.id, repository.isSecure)
    }
}
