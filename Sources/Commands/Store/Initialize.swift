import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

struct Initialize: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "init", abstract: "Make a repository.")

    @Argument(help: "The directory; by default the repository of the global options.", completion: .directory)
    var path: ByteString?

    @Option(help: ArgumentHelp("fsverity-sha512-12 or fsverity-sha256-12.", valueName: "name"))
    var algorithm = "fsverity-sha512-12"

    @Option(
        help: ArgumentHelp("EROFS format of the images: 0, 1 or 2. The first one is the default, the others are also made.", valueName: "n")
    )
    var erofsVersion: [Int] = []

    @Flag(help: "Do not use fs-verity: digests are checked by reading files, not by the kernel.")
    var insecure = false

    @Flag(help: "Accept an existing repository with any configuration.")
    var ensure = false

    @Flag(help: "Make the repository in a directory that has other files.")
    var force = false

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup(title: "Signing options") var signing: SigningOptions
    @OptionGroup var global: GlobalOptions

    func validate() throws {
        guard !(insecure && global.requireVerity) else { throw ValidationError("--insecure and --require-verity exclude each other") }
    }

    func run() throws {
        guard let algorithm = RepositoryMetadata.algorithm(named: algorithm) else {
            throw ValidationError("--algorithm must be fsverity-sha512-12 or fsverity-sha256-12, not \(algorithm)")
        }
        let versions = try erofsVersion.map(VersionOption.version(numbered:))
        let signer = try signing.signer()
        let location = try path ?? global.repositoryPath()
        let configuration = RepositoryConfiguration(
            algorithm: algorithm, erofsFormats: ErofsFormats(default: versions.first ?? .v1, extra: Array(versions.dropFirst())),
            verity: insecure ? .insecure : .required)
        if ensure, let existing = try? Store.open(location, global.openOptions(readOnly: false)) {
            global.note("the repository exists; its configuration is kept")
            return try InitializedRepository(repository: existing.repository, isCreated: false).show(asJSON: json)
        }
        if !force { try global.requireOwnDirectory(location, hint: "--force makes a repository there all the same") }
        let (store, created) = try Store.initialize(location, configuration, global.openOptions(readOnly: false, signer))
        if signer != nil { global.warnOfUncheckedSignatures() }
        if !created { global.note("the repository exists already") }
        try InitializedRepository(repository: store.repository, isCreated: created).show(asJSON: json)
    }
}

/// The repository that `init` created or found.
private struct InitializedRepository: CommandReport {
    var repository: Repository
    var isCreated: Bool

    private var algorithm: String { RepositoryMetadata.name(of: repository.algorithm) }

    var lines: [String] {
        [
            "path       \(Output.printable(repository.path))", "algorithm  \(algorithm)",
            "verity     \(repository.isSecure ? "required" : "not required (insecure)")",
        ]
    }

    var json: JSONValue {
        [
            "path": .string(repository.path.jsonText), "algorithm": .string(algorithm), "verity": .bool(repository.isSecure),
            "erofsVersions": .array(repository.erofsFormats.all.map { .integer(Int64($0.rawValue)) }), "created": .bool(isCreated),
        ]
    }
}
