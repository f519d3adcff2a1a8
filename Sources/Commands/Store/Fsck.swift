import ArgumentParser
import ComposefsOCI

struct Fsck: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Look for damage in all of the repository, or in one image. Changes nothing; exit status 2 where there is some.")

    @Argument(help: "Only this image, besides the repository itself.")
    var image: ByteString?

    @Flag(help: "Leave out what reads all objects.")
    var metadataOnly = false

    @Flag(help: "Also merge the layers anew and compare the EROFS images.")
    var deep = false

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func validate() throws {
        guard !(metadataOnly && deep) else { throw ValidationError("--metadata-only and --deep exclude each other") }
    }

    func run() throws {
        let store: Store
        do {
            store = try global.openStore(readOnly: true)
        } catch let error as RepositoryError {
            switch error {
            // The one file that everything else depends on.
            case .metadata, .unsupportedVersion, .incompatibleFeatures, .algorithmMismatch, .verityLost:
                return try reportUnusable("\(error)")
            default: throw error
            }
        }
        let found = try store.checkSynchronously(image, ImageCheckOptions(metadataOnly: metadataOnly, deep: deep))
        let (report, images, isClean) = (found.repository, found.images, found.isClean)
        if json {
            try Output.print([
                "ok": .bool(isClean), "repository": report.json, "imagesChecked": .integer(Int64(images.imagesChecked)),
                "imagesDamaged": .integer(Int64(images.imagesDamaged)),
                "imageErrors": .array(
                    images.problems.map {
                        ["type": .string($0.kind), "image": .string($0.image.description), "detail": .string($0.detail)]
                    }),
            ])
        } else {
            // The verdict stands last, over both levels.
            let lines = report.lines
            let verdict = lines.firstIndex { $0.hasPrefix("status:") } ?? lines.count
            for line in lines[..<verdict] { try Output.print(line) }
            try Output.print("oci images: \(images.imagesChecked - images.imagesDamaged)/\(images.imagesChecked) ok")
            let count = report.problems.count + images.problems.count
            try Output.print(count == 0 ? "status: ok" : "status: \(count) error(s)")
            for problem in report.problems { try Output.print("  - \(problem)") }
            for problem in images.problems { try Output.print("  - \(problem)") }
        }
        if !isClean { throw DamageFound(message: nil) }
    }

    private func reportUnusable(_ what: String) throws {
        if json {
            try Output.print([
                "ok": .bool(false),
                "repository": [
                    "ok": .bool(false), "errors": [["type": "metadata-parse-failed", "path": "meta.json", "detail": .string(what)]],
                ],
            ])
        } else {
            try Output.print("meta.json: error")
            try Output.print("status: 1 error(s)")
            try Output.print("  - fsck: metadata-parse-failed: \(what)")
        }
        throw DamageFound(message: nil)
    }
}
