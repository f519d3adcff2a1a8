import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

struct Untag: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Remove a name. The next gc removes what only this name kept.",
        discussion:
            "The last name of an image that is mounted, booted or deployed, or that a boot entry names, is removed with --force only.")

    @Argument(help: "The name as it is stored.")
    var name: ByteString

    @Flag(
        name: .shortAndLong, help: "Also remove the last name of an image that is in use. What the image needs is kept while it is in use.")
    var force = false

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let store = try global.openStore(Self.rights).images
        // If the system tells of no uses at all, only the name is removed: gc then removes nothing.
        let isForced = force || UnknownUses.areTold(in: store, global)
        try store.removeAnyName(name, force: isForced)
        try RemovedNames(names: [name]).show(asJSON: json)
    }
}

/// A system that does not tell what is in use, such as one without /proc.
enum UnknownUses {
    /// Whether that is so; says it then.
    static func areTold(in store: ImageStore, _ global: GlobalOptions) -> Bool {
        do {
            _ = try store.repository.imageUses()
            return false
        } catch {
            tell(error, global)
            return true
        }
    }

    static func tell(_ error: any Error, _ global: GlobalOptions) {
        global.note("warning: cannot tell which images are in use: \(describe(error)); gc removes nothing until it can")
    }
}

struct RemovedNames: CommandReport {
    var names: [ByteString]

    var lines: [String] { names.map { "Removed tag \(Output.printable($0))" } }

    var json: JSONValue { ["removed": .array(names.map { .string($0.jsonText) })] }
}

extension ImageStore {
    /// Removes a tag or, if there is none of that name, a name that create-image gave.
    func removeAnyName(_ name: ByteString, force: Bool) throws {
        do {
            try untag(name, force: force)
        } catch let error as ImageStoreError {
            // A name that cannot be a tag may be one of create-image.
            switch error {
            case .noSuchImage, .invalidTag: if try !removeName(name, force: force) { throw error }
            default: throw error
            }
        }
    }
}
