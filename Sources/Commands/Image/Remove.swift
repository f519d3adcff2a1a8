import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsOCI

struct Remove: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rm", abstract: "Remove images: a tag, or all tags of a digest. The next gc frees the space.",
        discussion: """
            A failure does not prevent the other removals; if anything was removed, the exit status is then 1. The last name of an image that is mounted, booted or \
            deployed, or that a boot entry names, is removed with --force only.
            """)

    @Argument(help: "The images.", completion: .imageName)
    var images: [ByteString]

    @Flag(name: .shortAndLong, help: "Also remove images that are in use. What they need is kept while they are in use.")
    var force = false

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func validate() throws {
        guard !images.isEmpty else { throw ValidationError("name at least one image") }
    }

    func run() throws {
        let store = try global.openStore(Self.rights).images
        // A failure does not prevent the other removals: the command repeated removes the rest. All names are resolved first, so that none
        // is missing because an earlier removal took it away.
        var groups: [[ByteString]] = []
        var seen: Set<ByteString> = []
        var failures: [ErrorCode] = []
        for image in images {
            do {
                groups.append(try Self.names(of: image, in: store).filter { seen.insert($0).inserted })
            } catch {
                failures.append(Self.tell(error))
            }
        }
        var removed: [ByteString] = []
        // Asked once for all names.
        let uses = force ? nil : store.knownUses(global)
        for names in groups {
            do {
                // All names of one argument or none: a digest means the image.
                if let uses { try store.requireUnused(names, uses) }
            } catch {
                failures.append(Self.tell(error))
                continue
            }
            for name in names {
                do {
                    try store.removeAnyName(name)
                    removed.append(name)
                } catch {
                    failures.append(Self.tell(error))
                }
            }
        }
        // If nothing was removed, there are only errors to report.
        if !removed.isEmpty { try RemovedNames(names: removed).show(asJSON: json) }
        guard let first = failures.first else { return }
        // A status that says why must be true of the whole command.
        let isUniform = removed.isEmpty && failures.allSatisfy { $0.status == first.status }
        throw AlreadyTold(status: isUniform ? first.status : ErrorCode.failed.status)
    }

    private static func tell(_ error: any Error) -> ErrorCode {
        let code = ErrorCode(of: error)
        Output.error(describe(error), code, status: code.status)
        return code
    }

    /// The names to remove for IMAGE.
    private static func names(of image: ByteString, in store: ImageStore) throws -> [ByteString] {
        let names: [ByteString]
        do {
            names = try store.references(of: image)
        } catch ImageStoreError.imageNotFound(let name) {
            throw ImageStoreError.noSuchImage(name)
        }
        guard !names.isEmpty else { throw CommandError("\(image): no tag names this image; gc removes it") }
        return names
    }
}
