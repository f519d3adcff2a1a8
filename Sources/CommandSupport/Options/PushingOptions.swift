package import ArgumentParser
package import ComposefsCompression
package import ComposefsOCI

/// How layers are packed and sent.
package struct PushingOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "How layers are compressed; by default as the manifest states. Layers whose original blobs are available are sent unchanged.",
            valueName: "gzip|zstd|none"))
    package var compression: LayerCompression?

    @Option(help: ArgumentHelp("The compression level. gzip: 1 to 9 (default: 6), zstd: 1 to 22 (default: 3).", valueName: "n"))
    package var compressionLevel: Int?

    @Option(help: ArgumentHelp("The number of layers that are sent at the same time.", valueName: "n"))
    package var jobs: Int?

    @Option(
        help: ArgumentHelp(
            "Signatures and other artifacts of the image: keep sends them if the digest of the manifest stays the same, rewrite sends them "
                + "always, with a new subject.",
            valueName: "keep|rewrite|none"))
    package var referrers: ReferrerChoice = .keep

    @Flag(
        help:
            "Send the index that pull --all-platforms has stored under this name, with all manifests that it lists, and with the digest that it has."
    )
    package var allPlatforms = false

    @Option(
        help: ArgumentHelp(
            "With --all-platforms: keep sends the index as it is, and refuses if one of its manifests is missing or would get another digest; sparse "
                + "sends it without the missing ones; rewrite sends a new index of what is stored, with the digests that it gets.",
            valueName: "keep|sparse|rewrite"))
    package var index: IndexChoice?

    @Flag(help: "Print JSON.")
    package var json = false

    package init() {}

    package func validate() throws {
        if let jobs, jobs < 1 { throw ValidationError("--jobs must be at least 1") }
        guard allPlatforms || index == nil else { throw ValidationError("--index needs --all-platforms") }
        guard let level = compressionLevel else { return }
        guard let format = compression?.format else { throw ValidationError("--compression-level needs --compression") }
        guard let levels = PushOptions.levels(of: format) else { throw ValidationError("--compression none has no levels") }
        guard levels.contains(level) else {
            throw ValidationError("--compression-level must be from \(levels.lowerBound) to \(levels.upperBound) for \(format.name)")
        }
    }

    package func options(_ observer: @escaping PushObserver) -> PushOptions {
        var options = PushOptions(
            compression: compression?.format, level: compressionLevel, jobs: jobs, referrers: referrers.policy, observer: observer)
        options.index = (index ?? .keep).policy
        return options
    }
}

package enum LayerCompression: String, ExpressibleByArgument, CaseIterable {
    case gzip, zstd, none

    package var format: CompressionFormat {
        switch self {
        case .gzip: .gzip
        case .zstd: .zstd
        case .none: .none
        }
    }
}

package enum ReferrerChoice: String, ExpressibleByArgument, CaseIterable {
    case keep, rewrite, none

    package var policy: PushOptions.Referrers {
        switch self {
        case .keep: .ifUnchanged
        case .rewrite: .rewritten
        case .none: .none
        }
    }
}

package enum IndexChoice: String, ExpressibleByArgument, CaseIterable {
    case keep, sparse, rewrite

    package var policy: PushOptions.Index {
        switch self {
        case .keep: .unchanged
        case .sparse: .sparse
        case .rewrite: .rewritten
        }
    }
}
