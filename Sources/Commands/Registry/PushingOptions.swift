import ArgumentParser
import ComposefsCompression
import ComposefsOCI

/// How layers are packed and sent.
struct PushingOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "How layers are packed; as the manifest says where left out. Layers whose original blobs are at hand stay as they are.",
            valueName: "gzip|zstd|none"))
    var compression: LayerCompression?

    @Option(help: ArgumentHelp("gzip: 1 to 9 (6), zstd: 1 to 22 (3).", valueName: "n"))
    var compressionLevel: Int?

    @Option(help: ArgumentHelp("How many layers are sent at the same time.", valueName: "n"))
    var jobs: Int?

    @Option(
        help: ArgumentHelp(
            "Signatures and other artifacts of the image: keep sends them where the manifest's digest stays, rewrite always, with their "
                + "subject changed.",
            valueName: "keep|rewrite|none"))
    var referrers: ReferrerChoice = .keep

    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        if let jobs, jobs < 1 { throw ValidationError("--jobs takes a number from 1 up") }
        guard let level = compressionLevel else { return }
        guard let format = compression?.format else { throw ValidationError("--compression-level needs --compression") }
        guard let levels = PushOptions.levels(of: format) else { throw ValidationError("--compression none has no level") }
        guard levels.contains(level) else {
            throw ValidationError("--compression-level of \(format.name) is \(levels.lowerBound) to \(levels.upperBound)")
        }
    }

    func options(_ observer: @escaping PushObserver) -> PushOptions {
        PushOptions(
            compression: compression?.format, level: compressionLevel, jobs: jobs, referrers: referrers.policy, observer: observer)
    }
}

enum LayerCompression: String, ExpressibleByArgument, CaseIterable {
    case gzip, zstd, none

    var format: CompressionFormat {
        switch self {
        case .gzip: .gzip
        case .zstd: .zstd
        case .none: .none
        }
    }
}

enum ReferrerChoice: String, ExpressibleByArgument, CaseIterable {
    case keep, rewrite, none

    var policy: PushOptions.Referrers {
        switch self {
        case .keep: .whereUnchanged
        case .rewrite: .rewritten
        case .none: .none
        }
    }
}
