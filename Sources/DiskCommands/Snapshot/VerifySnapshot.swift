import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsOCI

struct VerifySnapshot: ParsableCommand, ConfinedCommand {
    static var rights: CommandRights? { .reading() }

    static let configuration = CommandConfiguration(
        commandName: "verify", abstract: "Read all of a snapshot, and compare it with its descriptor; print the digest of the content.",
        discussion: """
            Exit status 2 if it is damaged.

            Example: cfsoci snapshot verify ready
            """)

    @Argument(help: "The snapshot.", completion: .snapshotName)
    var snapshot: ByteString

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let store = try global.openStore(Self.rights, readOnly: true)
        let snapshots = SnapshotStore(store.images)
        do {
            let verified = try withSnapshotHints { try snapshots.verify(try snapshots.open(snapshot)) }
            if verified.hasParent == false { global.warn("the parent is not in the repository") }
            if !verified.hasImage { global.warn("the image \(verified.snapshot.descriptor.imageManifest) is not in the repository") }
            try VerifiedReport(verified: verified).show(asJSON: json)
        } catch let error as CommandError where error.code == .damaged {
            throw DamageFound(message: error.description)
        } catch let error as RepositoryError {
            guard error.isDamage else { throw error }
            throw DamageFound(message: "snapshot \(Output.printable(snapshot)): \(error)")
        }
    }
}

extension RepositoryError {
    /// Whether the repository is at fault, and not the system.
    fileprivate var isDamage: Bool {
        switch self {
        case .objectMissing, .objectDamaged, .objectTooLarge, .stream, .invalidLink: true
        default: false
        }
    }
}

private struct VerifiedReport: CommandReport {
    var verified: VerifiedSnapshot

    var lines: [String] {
        ["\(verified.snapshot.identity): ok, \(verified.integrity.value)\(verified.isRecorded ? "" : " (not recorded in the descriptor)")"]
    }

    var json: JSONValue {
        [
            "ok": true, "identity": .string("\(verified.snapshot.identity)"), "algorithm": .string(verified.integrity.algorithm),
            "digest": .string(verified.integrity.value), "recorded": .bool(verified.isRecorded),
            "parentStored": verified.hasParent.map { .bool($0) } ?? .null, "imageStored": .bool(verified.hasImage),
        ]
    }
}
