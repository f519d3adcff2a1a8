public import ArgumentParser
package import ComposefsBytes
import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsOCI
import Synchronization

/// Options that every command accepts, before or after its name.
public struct GlobalOptions: ParsableArguments {
    @Option(help: ArgumentHelp("The repository. Environment: CFSOCI_REPO.", valueName: "path"), completion: .directory)
    package var repo: ByteString?

    @Flag(help: "The user's repository, $HOME/.var/lib/composefs.")
    package var user = false

    @Flag(help: "The system's repository, /sysroot/composefs.")
    package var system = false

    @Flag(help: "Refuse a repository without fs-verity, and do not make one. Environment: CFSOCI_REQUIRE_VERITY=1.")
    package var requireVerity = false

    @Flag(
        help: """
            Write to a repository even if another user owns it or a directory in it, or can write to them. Environment: \
            CFSOCI_TRUST_OWNER=1.
            """)
    package var trustOwner = false

    @Flag(
        help: """
            Do not confine the command. By default it gives up, before it reads bytes of others, what it does not need: capabilities, paths \
            (Landlock), system calls (seccomp). Environment: CFSOCI_NO_SANDBOX=1.
            """)
    package var noSandbox = false

    @Flag(name: .shortAndLong, help: "Print only errors on standard error.")
    package var quiet = false

    @Flag(
        name: [.short, .customLong("verbose")],
        help: "Print more on standard error: also which registry, mirror and credentials are used; twice (-vv), each request.")
    package var verbosity: Int

    @Option(help: ArgumentHelp("How progress is shown.", valueName: "auto|tty|plain|json|none"))
    package var progress: ProgressStyle = .auto

    @Option(
        help: ArgumentHelp(
            "Write JSON lines about progress to this descriptor instead of standard error; implies --progress json.",
            valueName: "descriptor"))
    package var progressFd: Int32?

    public init() {}

    public mutating func validate() throws {
        guard [repo != nil, user, system].count(where: { $0 }) <= 1 else {
            throw ValidationError("--repo, --user and --system exclude each other")
        }
        guard repo?.isEmpty != true else { throw ValidationError("--repo is empty") }
        if let progressFd {
            guard progress == .auto || progress == .json else { throw ValidationError("--progress-fd needs --progress json") }
            guard FileDescriptor.isWritable(progressFd) else {
                throw ValidationError("--progress-fd \(progressFd): this process has no such descriptor open for writing")
            }
            if progressFd > StandardStream.error.rawValue { FileDescriptor.closeOnExec(progressFd) }
            Output.progressDescriptor.store(progressFd, ordering: .relaxed)
        }
        guard !quiet || verbosity == 0 else { throw ValidationError("--quiet and --verbose exclude each other") }
    }

    /// The repository of the options, the environment or the convention, in this order.
    package func repositoryPath() throws -> ByteString {
        if let repo { return repo }
        if user { return try Self.userPath() }
        if system { return Self.systemPath }
        if let path = environment("CFSOCI_REPO"), !path.isEmpty { return path }
        guard Host.effectiveUserID == 0 else { return try Self.userPath() }
        let sysroot = try FileDescriptor.currentDirectory.statusIfPresent(at: "/sysroot", follow: true)
        return sysroot?.kind == .directory ? Self.systemPath : "/var/lib/composefs"
    }

    package static var systemPath: ByteString { "/sysroot/composefs" }

    package static func userPath() throws -> ByteString {
        guard let home = environment("HOME"), !home.isEmpty else {
            throw CommandError("HOME is not set, so the user has no repository; name one with --repo")
        }
        return home + "/.var/lib/composefs"
    }

    /// Whether a repository without fs-verity is refused.
    package var needsVerity: Bool {
        requireVerity || Self.environmentNeedsVerity
    }

    /// As above, from the environment only.
    package static var environmentNeedsVerity: Bool { isSet("CFSOCI_REQUIRE_VERITY") }

    /// Whether a repository that another user could change is written to.
    package var trustsOwner: Bool { trustOwner || Self.isSet("CFSOCI_TRUST_OWNER") }

    static func isSet(_ variable: String) -> Bool {
        environment(variable).map { !$0.isEmpty && $0 != "0" } ?? false
    }

    package var verbose: Bool { verbosity > 0 }

    package func note(_ message: String) { noteTaker(message) }

    /// How progress is shown: as the options require, otherwise as standard error allows.
    package var progressStyle: ProgressStyle {
        if progressFd != nil { return .json }
        guard progress == .auto else { return progress }
        guard !quiet, Output.errorIsTerminal else { return .none }
        // A terminal without cursor movement gets lines.
        let kind = environment("TERM") ?? ""
        return kind.isEmpty || kind == "dumb" ? .plain : .tty
    }

    /// Whether -q follows the command's name: a command that lists things prints names only then.
    package var printsNamesOnly: Bool {
        quiet
            && Arguments.followsCommand(
                ["-q", "--quiet"], letter: "q", valued: ["--repo", "--progress", "--progress-fd", "--filter", "--sort", "--format"])
    }

    package func warn(_ message: String) { warningTaker(message) }

    /// Prints what was done, and what is worth knowing, as the options require.
    package var noteTaker: @Sendable (String) -> Void { taker("") { Output.note($0) } }

    package var warningTaker: @Sendable (String) -> Void { taker("warning: ") { Output.tell(.warning, $0) } }

    /// - Parameter mark: what distinguishes the messages in JSON.
    private func taker(_ mark: String, _ show: @escaping @Sendable (String) -> Void) -> @Sendable (String) -> Void {
        let (quiet, isJSON) = (quiet, progressStyle == .json)
        return { message in
            guard !quiet else { return }
            // With JSON progress, standard error contains nothing but JSON lines.
            if isJSON { Output.json(["event": EventName.note.json, "message": .string(mark + message)]) } else { show(message) }
        }
    }
}

/// An environment variable's value as bytes.
package func environment(_ name: String) -> ByteString? { Host.environment(name) }

package enum ProgressStyle: String, ExpressibleByArgument, CaseIterable {
    case auto, tty, plain, json, none
}
