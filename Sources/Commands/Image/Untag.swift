import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

struct Untag: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "untag", abstract: "Remove a name. The next gc removes what only this name kept.",
        discussion:
            "The last name of an image that is mounted, booted or deployed, or that a boot entry names, is removed with --force only.")

    @Argument(help: "The name as it is stored.", completion: .imageName)
    var name: ByteString

    @Flag(
        name: .shortAndLong, help: "Also remove the last name of an image that is in use. What the image needs is kept while it is in use.")
    var force = false

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let store = try global.openStore(Self.rights).images
        if !force, let uses = store.knownUses(global) { try store.requireUnused([name], uses) }
        try store.removeAnyName(name)
        try RemovedNames(names: [name]).show(asJSON: json)
    }
}

struct RemovedNames: CommandReport {
    var names: [ByteString]

    var lines: [String] { names.map { "Removed tag \(Output.printable($0))" } }

    var json: JSONValue { ["removed": .array(names.map { .string($0.jsonText) })] }
}

extension ImageStore {
    /// What is in use, for the removal of names. Nil, with a warning, if the system does not tell, such as one without /proc: nothing is lost by
    /// removing a name there, since collections remove nothing.
    func knownUses(_ global: GlobalOptions) -> ImageUses? {
        do {
            return try repository.imageUses()
        } catch {
            global.warn("cannot tell which images are in use: \(describe(error)); gc removes nothing until it can")
            return nil
        }
    }

    /// Removes a tag or, if there is none of that name, a name that create-image gave. Does not ask whether the image is in use.
    func removeAnyName(_ name: ByteString) throws {
        do {
            try untag(name, force: true)
        } catch let error as ImageStoreError {
            // A name that cannot be a tag may be one of create-image.
            switch error {
            case .noSuchImage, .invalidTag: if try !removeName(name, force: true) { throw error }
            default: throw error
            }
        }
    }
}
