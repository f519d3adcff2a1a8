import ComposefsBytes
import ComposefsCommandSupport
import ComposefsLinuxSystem
import ComposefsOCI

/// `mount.composefs`: the program that mount(8) runs for file systems of type composefs, so that fstab lines and mount units of systemd
/// work. Used if the program is called by that name, or with that name as its first argument.
///
/// Exit statuses are those of mount(8): 0 success, 1 wrong arguments or no permission, 2 resources exhausted, 32 mount failure.
enum MountHelper {
    static let name = HelperInvocation.name

    static func run(_ arguments: [ByteString]) -> Int32 {
        var image: ByteString?
        var repository: ByteString?
        do {
            let invocation = try HelperInvocation(arguments)
            repository = invocation.options.repository
            if repository != nil { image = invocation.source }
            if invocation.isHelp || invocation.isVersion {
                let usage = HelperInvocation.usage(names: "what `cfsoci mount` takes")
                try Output.print(invocation.isHelp ? usage : "\(name) (cfsoci) \(Version.text)")
                try Output.flush()
                return 0
            }
            try invocation.enterNamespace()
            if Sandbox.isWanted, Mount.isPrivileged {
                // `features` says what is active: scripts compare what mount(8)'s helpers print.
                _ = try Sandbox.apply(.mounting, repository: nil)
            }
            try invocation.run(note: Output.note) { options, digest in
                try mountNamed(invocation, options, digest)
            }
            return 0
        } catch let error as HelperInvocation.UsageError {
            Output.fault("\(name): \(error.description); \(name) --help shows the options")
            return HelperInvocation.status(of: error)
        } catch {
            let message = ImageHints.message(of: error, image: image) {
                try repository.map { try Store.open($0, OpenOptions(readOnly: true)) }
            }
            Output.fault("\(name): \(message)")
            if case RepositoryError.system(let system) = error { return HelperInvocation.status(of: system) }
            return HelperInvocation.status(of: error)
        }
    }

    /// An image of a repository, by its name.
    private static func mountNamed(
        _ invocation: HelperInvocation, _ options: MountOptions, _ digest: ObjectID?
    ) throws -> (image: ObjectID, isChecked: Bool) {
        let isRequired = invocation.options.verity == .required || GlobalOptions.environmentNeedsVerity
        let store = try Store.openUnchanged(
            invocation.options.repository ?? "", OpenOptions(requireVerity: isRequired, readOnly: invocation.isFake))
        let isBootable = invocation.options.isBootable
        guard !invocation.isFake else {
            let opened = try store.openMountable(invocation.source, bootable: isBootable, digest: digest)
            return (opened.id, store.repository.isSecure)
        }
        let id = try store.mount(invocation.source, at: invocation.target, bootable: isBootable, digest: digest, options)
        return (id, store.repository.isSecure)
    }
}
