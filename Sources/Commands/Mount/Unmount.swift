import ArgumentParser
import ComposefsCommandSupport
import ComposefsLinuxSystem
import ComposefsOCI

struct Unmount: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "umount", abstract: "Unmount an image.",
        discussion: "Also unmounts images that another composefs tool mounted, with their EROFS part. For other mounts use umount(8).")

    @Argument(help: "The mount point.", completion: .directory)
    var directory: ByteString

    @Flag(name: .shortAndLong, help: "Detach it even if it is in use; it ends with its last user.")
    var lazy = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        do throws(MountError) {
            try unmount(directory, lazily: lazy)
        } catch {
            // A mount that was made with fusermount3 is unmounted with it, but only by its owner: to other users it does not say why it
            // refuses.
            guard case .noRights = error, fuseMountOwner(at: directory) == Host.effectiveUserID else { throw error }
            do throws(FuseError) {
                try unmountFuse(directory, lazily: lazy)
            } catch let failure {
                if case .noRights = failure { throw error }
                throw failure
            }
        }
    }
}
