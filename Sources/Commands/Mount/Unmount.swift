import ArgumentParser
import ComposefsLinuxSystem
import ComposefsOCI

struct Unmount: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "umount", abstract: "Unmount an image.",
        discussion: "Also one that another composefs tool mounted, with its EROFS part. What is no image is left to umount(8).")

    @Argument(help: "Where it is mounted.")
    var directory: ByteString

    @Flag(name: .shortAndLong, help: "Detach it even where it is in use; it ends with its last user.")
    var lazy = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        do throws(MountError) {
            try unmount(directory, lazily: lazy)
        } catch {
            // Who mounted through fusermount3 unmounts through it; it would not tell others why it refuses.
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
