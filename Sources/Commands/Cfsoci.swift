public import ArgumentParser
import ComposefsArchiveCommands
import ComposefsBootCommands
public import ComposefsCommandSupport
import ComposefsDiskCommands
import ComposefsLinuxSystem
import ComposefsLowLevelCommands
import ComposefsOCI
import ComposefsServiceCommands
import ComposefsToolCommands
import Synchronization

/// The command itself: `cfsoci SUBCOMMAND …`.
public struct Cfsoci: ParsableCommand {
    public static let configuration = CommandConfiguration(
        commandName: "cfsoci",
        abstract: "A composefs store for OCI images.",
        discussion: """
            IMAGE is a tag as stored, a short form of one (alpine), the digest of a manifest or config (sha256:…), or 6 or more of its \
            first hex digits.

            Exit status: 0 success, 1 failure, 2 damage found, 3 no such image, tag or repository, 4 unauthorized or refused by policy, 5 \
            unreachable, 6 busy or in use, 7 no space, 64 usage error, 130 interrupted.
            """,
        version: Version.text,
        groupedSubcommands: [
            CommandGroup(
                name: "Images",
                subcommands: [
                    Pull.self, Push.self, Export.self, Load.self, Save.self, Copy.self, Images.self, Inspect.self, Tag.self, Untag.self,
                    Seal.self, Remove.self,
                    Referrers.self,
                    History.self, Difference.self,
                ]),
            CommandGroup(name: "Registries", subcommands: [Login.self, Logout.self]),
            CommandGroup(
                name: "Image content", subcommands: [List.self, Cat.self, CopyOut.self, Unpack.self, Layer.self, Dump.self, ComputeID.self]),
            CommandGroup(name: "Mounting", subcommands: [Mount.self, Unmount.self]),
            CommandGroup(name: "Booting", subcommands: [Boot.self]),
            CommandGroup(name: "Virtual machines", subcommands: [Disk.self, Snapshots.self]),
            CommandGroup(
                name: "The store",
                subcommands: [
                    Initialize.self, Info.self, DiskUsage.self, Fsck.self, GarbageCollect.self, Prune.self, Upgrade.self, Features.self,
                    Metrics.self, ShowVersion.self,
                ]),
            CommandGroup(name: "Other programs", subcommands: [VarlinkCommand.self]),
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
        // The directories of objects and as many others.
        Host.makeRoom(forDescriptors: 512)
        Host.returnsFreedMemory(ofAtLeast: 256 << 10)
        // A command can be stopped at any time, and the next command continues, so there is nothing to undo. A background job of a shell
        // ignores the signal and continues to do so.
        if !Host.ignores(signal: Signal.interrupt.number) {
            Signal.interrupt.handle { _ in
                TerminalGuard.restore()
                Host.exitFromHandler(130)
            }
        }
        // A closed pipe is an error of write(2) and does not end the process in the middle of its output.
        Signal.brokenPipe.ignore()
        // A file that exceeds RLIMIT_FSIZE is an error, too: EFBIG.
        Signal.fileTooLarge.ignore()
        if let arguments = HelperInvocation.arguments(Arguments.all()) { end(MountHelper.run(arguments)) }
        if let status = ComposefsTools.run(Arguments.all()) { end(status) }
        let arguments = Arguments.texts()
        // What the parser would answer, without the time that it takes.
        if arguments == ["--version"] { end(printing: Version.text) }
        Output.errorsAreJSON.store(wantsJSONErrors(arguments), ordering: .relaxed)
        var about: (any ImageCommand)?
        do {
            var command = try command(of: arguments)
            if !CommandWords.commands(of: type(of: command)).isEmpty { endWithoutCommand(type(of: command)) }
            about = command as? any ImageCommand
            try command.run()
            try Output.flush()
            end(0)
        } catch let damage as DamageFound {
            try? Output.flush()
            if let message = damage.message { Output.error(message, .damaged, status: 2) }
            end(2)
        } catch is Interrupted {
            try? Output.flush()
            end(ErrorCode.interrupted.status)
        } catch let told as AlreadyTold {
            try? Output.flush()
            end(told.status)
        } catch let fault as CommandWords.Fault {
            endWithUsage(printable(fault.message), hint: fault.hint.map(printable))
        } catch {
            try? Output.flush()
            if isOurs(error) {
                let message = ImageHints.message(of: error, image: about?.namedImage) {
                    try about?.global.openStore(nil, readOnly: true)
                }
                let code = ErrorCode(of: error)
                Output.error(message, code, status: code.status)
                end(code.status)
            }
            let status = exitCode(for: error).rawValue
            // Help and version are printed on standard output. Usage errors quote arguments.
            if status == 0 {
                let text = fullMessage(for: error)
                end(printing: Help.text(text, examples: Examples.of(help: text)))
            }
            if showsOnlyJSON(arguments) { endWithUsage(printable(self.message(for: error))) }
            Output.fault(printable(fullMessage(for: error)))
            end(status)
        }
    }

    private static func end(printing text: String) -> Never {
        try? Output.print(text)
        end((try? Output.flush()) == nil ? ErrorCode.failed.status : 0)
    }

    /// The command that arguments name, with the values of its options.
    static func command(of arguments: [String]) throws -> any ParsableCommand {
        let checked = try CommandWords.checked(arguments)
        if let type = checked.command, let command = parse(checked.arguments, as: type) { return command }
        return try parseAmongAll(checked.arguments)
    }

    static func parseAmongAll(_ arguments: [String]) throws -> any ParsableCommand { try parseAsRoot(arguments) }

    /// The same as `parseAmongAll` if nothing is wrong, but faster: the parser prepares every command that it knows. Nil for help and errors, which
    /// name other commands.
    private static func parse<Command: ParsableCommand>(_ arguments: [String], as type: Command.Type) -> (any ParsableCommand)? {
        // After the name all options are the command's: those of `cfsoci` need not be prepared a second time.
        let isFirst = arguments.first.map { CommandWords.names(of: type).contains($0) } ?? false
        let parsed = isFirst ? try? FirstCommand<Command>.parseAsRoot(arguments) : try? SingleCommand<Command>.parseAsRoot(arguments)
        guard let parsed, CommandWords.includes(type, Swift.type(of: parsed)) else { return nil }
        return parsed
    }

    /// What usage errors begin with; all other messages begin so, too.
    public static var _errorPrefix: String { Output.prefix + "error: " }

    /// Whether errors are events in JSON. Looked up before the arguments are parsed, because that may fail.
    private static func wantsJSONErrors(_ arguments: [String]) -> Bool {
        showsOnlyJSON(arguments)
            || options(arguments).contains { $0 == "--json" || $0 == "--progress-fd" || $0.hasPrefix("--progress-fd=") }
    }

    /// Whether standard error contains nothing but JSON.
    private static func showsOnlyJSON(_ arguments: [String]) -> Bool {
        let options = options(arguments)
        return options.contains("--progress=json") || zip(options, options.dropFirst()).contains { $0 == "--progress" && $1 == "json" }
    }

    private static func options(_ arguments: [String]) -> ArraySlice<String> { arguments.prefix { $0 != "--" } }

    private static func endWithUsage(_ message: String, hint: String? = nil) -> Never {
        let status = ErrorCode.usage.status
        if showsOnlyJSON(Arguments.texts()) {
            Output.error(message + (hint.map { "; " + $0 } ?? ""), .usage, status: status)
        } else {
            Output.fault(_errorPrefix + message)
            if let hint { Output.tell(.hint, hint) }
            Output.note("Usage: cfsoci [options] <subcommand>\n  See 'cfsoci --help' for more information.")
        }
        end(status)
    }

    /// A command that only has subcommands was named without one.
    private static func endWithoutCommand(_ type: any ParsableCommand.Type) -> Never {
        if showsOnlyJSON(Arguments.texts()) { endWithUsage("no command was named") }
        let text = helpMessage(for: type)
        Output.note(Help.text(text, examples: Examples.of(help: text)))
        end(ErrorCode.usage.status)
    }

    /// Ends the process without exit handlers: those of OpenSSL free data that threads of the pull and the network may still use, which
    /// would crash the process and change its exit status.
    static func end(_ status: Int32) -> Never { Host.exitWithoutHandlers(status) }

    /// The message without control characters, and without the passwords of the references that it quotes: the parser of arguments does not
    /// know what an argument means.
    private static func printable(_ message: String) -> String {
        var message = message
        for argument in Arguments.texts() {
            // An option and its value may be one argument.
            for text in [argument] + argument.split(separator: "=", maxSplits: 1).map(String.init) where hidingSecrets(text) != text {
                message = message.replacing(text, with: hidingSecrets(text))
            }
        }
        return message.split(separator: "\n", omittingEmptySubsequences: false).map { Output.printable(Arguments.bytes(String($0))) }
            .joined(separator: "\n")
    }

    /// Errors of the argument parser print usage and exit with status 64; all others are one line.
    private static func isOurs(_ error: any Error) -> Bool {
        let code = exitCode(for: error)
        return code == .failure && !(error is CleanExit) && !(error is ValidationError)
    }
}

/// `Cfsoci` with only one of its commands.
private struct SingleCommand<Command: ParsableCommand>: ParsableCommand {
    /// As the command below a program without a name, it is not asked for completion scripts, which would take longer than the rest.
    static var configuration: CommandConfiguration {
        CommandConfiguration(commandName: "cfsoci", _superCommandName: "", subcommands: [Command.self])
    }

    @OptionGroup var global: GlobalOptions
}

/// `Cfsoci` with only one of its commands, and without options before the command's name.
private struct FirstCommand<Command: ParsableCommand>: ParsableCommand {
    static var configuration: CommandConfiguration {
        CommandConfiguration(commandName: "cfsoci", _superCommandName: "", subcommands: [Command.self])
    }
}

/// Ends a command that has written its messages already.
struct AlreadyTold: Error {
    var status: Int32 = 1
}
