public import ArgumentParser
import ComposefsLinuxSystem
import ComposefsOCI

/// The command itself: `cfsoci SUBCOMMAND …`.
public struct Cfsoci: ParsableCommand {
    public static let configuration = CommandConfiguration(
        commandName: "cfsoci",
        abstract: "A composefs store for OCI images.",
        discussion: """
            IMAGE is a tag as stored, a short form of one (alpine), the digest of a manifest or config (sha256:…), or 6 or more of its \
            first hex digits. Exit status: 0 done, 1 failed, 2 damage found, 64 usage, 130 interrupted.
            """,
        version: Version.text,
        groupedSubcommands: [
            CommandGroup(
                name: "Images",
                subcommands: [
                    Pull.self, Push.self, Export.self, Copy.self, Images.self, Inspect.self, Tag.self, Untag.self, Remove.self,
                    Referrers.self,
                ]),
            CommandGroup(name: "Registries", subcommands: [Login.self, Logout.self]),
            CommandGroup(name: "Looking inside", subcommands: [List.self, Cat.self, Layer.self, Dump.self, ComputeID.self]),
            CommandGroup(name: "Mounting", subcommands: [Mount.self, Unmount.self]),
            CommandGroup(
                name: "The store",
                subcommands: [Initialize.self, Fsck.self, GarbageCollect.self, Prune.self, Upgrade.self, Features.self]),
            CommandGroup(
                name: "Low level",
                subcommands: [
                    ImportLayer.self, CreateImage.self, CreateDumpfile.self, ImageObjects.self, Stream.self,
                ]),
        ])

    @OptionGroup public var global: GlobalOptions

    public init() {}

    /// Runs the command that the process's arguments name, and exits.
    public static func start() -> Never {
        Host.fillStandardDescriptors()
        Host.returnsFreedMemory(ofAtLeast: 256 << 10)
        // Every state that a command can be stopped in is one that the next command continues from, so there is nothing to undo.
        // A shell's background job ignores the signal, and goes on doing so.
        if !Host.ignores(signal: Signal.interrupt.number) {
            Signal.interrupt.handle { _ in
                TerminalGuard.restore()
                Host.exitFromHandler(130)
            }
        }
        // A closed pipe is an error of write(2), not the end of the process in the middle of a sentence.
        Signal.brokenPipe.ignore()
        // So is a file that grows beyond RLIMIT_FSIZE: EFBIG.
        Signal.fileTooLarge.ignore()
        if let arguments = MountHelper.arguments(Arguments.all()) { end(MountHelper.run(arguments)) }
        var image: ByteString?
        do {
            var command = try parseAsRoot(Arguments.texts())
            image = (command as? any ImageCommand)?.namedImage
            try command.run()
            try Output.flush()
            end(0)
        } catch let damage as DamageFound {
            try? Output.flush()
            if let message = damage.message { Output.error(message) }
            end(2)
        } catch is Interrupted {
            try? Output.flush()
            end(130)
        } catch is AlreadyTold {
            try? Output.flush()
            end(1)
        } catch {
            try? Output.flush()
            if isOurs(error) {
                Output.error(ImageHints.message(of: error, image: image))
                end(1)
            }
            let status = exitCode(for: error).rawValue
            // Help and version go to standard output; what is wrong with arguments quotes them.
            if status == 0 { Self.exit(withError: error) }
            Output.note(printable(fullMessage(for: error)))
            end(status)
        }
    }

    /// Ends the process without exit handlers: OpenSSL's take away what threads of the pull and the network may still be using, which
    /// crashes them and turns the exit status into a signal.
    static func end(_ status: Int32) -> Never { Host.exitWithoutHandlers(status) }

    /// The message without what would act on a terminal.
    private static func printable(_ message: String) -> String {
        message.split(separator: "\n", omittingEmptySubsequences: false).map { Output.printable(Arguments.bytes(String($0))) }
            .joined(separator: "\n")
    }

    /// Errors of the argument parser print usage and exit 64; all others are one line.
    private static func isOurs(_ error: any Error) -> Bool {
        let code = exitCode(for: error)
        return code == .failure && !(error is CleanExit) && !(error is ValidationError)
    }
}

/// Ends a command with exit status 2: what it looked at is damaged.
struct DamageFound: Error {
    var message: String?
}

/// Ends a command with exit status 1: its messages have been written.
struct AlreadyTold: Error {}

/// A failure that a command itself finds.
struct CommandError: Error, CustomStringConvertible {
    var description: String

    init(_ description: String) { self.description = description }
}
