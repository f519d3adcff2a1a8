package import ArgumentParser
package import ComposefsOCI

/// Options of commands that fetch images: parallel transfers, retries and limits.
package struct TransferArguments: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "The number of layers that are read at the same time; by default one for each processor, and at least two.", valueName: "n"))
    package var jobs: Int?

    @Option(
        help: ArgumentHelp("The number of retries of a request or transfer that makes no progress (default: 5).", valueName: "n"))
    package var retries: Int?

    @Option(
        help: ArgumentHelp(
            "How long a transfer may stall before it is stopped and retried (default: 60).", valueName: "seconds"))
    package var timeout: Seconds?

    @Option(help: ArgumentHelp("The longest time to connect to a registry (default: 30).", valueName: "seconds"))
    package var connectTimeout: Seconds?

    @Option(
        help: ArgumentHelp(
            "The longest time until a response begins, and until a manifest or token is complete (default: 120).", valueName: "seconds"))
    package var requestTimeout: Seconds?

    @Option(
        help: ArgumentHelp(
            "The space for partial blobs in the repository, from which an interrupted pull continues (default: 8G); 0 keeps none.",
            valueName: "size"))
    package var keepPartial: ByteSize?

    @Flag(help: "Start even if the image can hardly fit on the file system.")
    package var noSpaceCheck = false

    @Option(help: ArgumentHelp("The largest layer, uncompressed (default: 64G).", valueName: "size"))
    package var maxLayerSize: ByteSize?

    @Option(help: ArgumentHelp("The largest number of entries in one layer (default: 4000000).", valueName: "n"))
    package var maxLayerEntries: UInt64?

    @Option(help: ArgumentHelp("The largest number of entries in all layers together (default: 8000000).", valueName: "n"))
    package var maxImageEntries: UInt64?

    @Option(
        help: ArgumentHelp(
            "The memory limit for an image's tree (default: 384M, or four times the size of the layers).", valueName: "size"))
    package var maxTreeMemory: ByteSize?

    @Option(help: ArgumentHelp("The largest manifest or index (default: 4M; at most 64M).", valueName: "size"))
    package var maxManifestSize: ByteSize?

    @Option(help: ArgumentHelp("The longest path of a file, in bytes (default, and at most: 4095).", valueName: "n"))
    package var maxPathLength: UInt64?

    @Option(help: ArgumentHelp("The largest size of one file's extended attributes (default: 256K).", valueName: "size"))
    package var maxXattrSize: ByteSize?

    @Option(help: ArgumentHelp("The deepest nesting of indexes (default: 8; at most 64).", valueName: "n"))
    package var maxIndexDepth: UInt64?

    @OptionGroup package var signatures: SignaturePolicyArguments

    package init() {}

    package func validate() throws {
        if let jobs, jobs < 1 { throw ValidationError("--jobs must be at least 1") }
        if let maxPathLength, maxPathLength > 4095 {
            throw ValidationError("--max-path-length must be at most 4095, the limit of Linux")
        }
        if let retries, retries < 0 { throw ValidationError("--retries must not be negative") }
    }

    /// Sets the options of a pull and of its registry.
    package func apply(to options: inout PullOptions, _ registry: inout RegistryOptions) {
        options.jobs = jobs
        if let keepPartial { options.keptBytesLimit = keepPartial.bytes }
        options.checksSpace = !noSpaceCheck
        if let maxLayerSize { options.limits.layerBytes = maxLayerSize.bytes }
        if let maxLayerEntries { options.limits.layerEntries = maxLayerEntries }
        if let maxImageEntries { options.limits.imageEntries = maxImageEntries }
        if let maxTreeMemory { options.limits.treeBytes = maxTreeMemory.bytes }
        if let maxManifestSize { options.limits.manifestBytes = maxManifestSize.bytes }
        if let maxPathLength { options.limits.pathBytes = maxPathLength }
        if let maxXattrSize { options.limits.xattrBytes = maxXattrSize.bytes }
        if let maxIndexDepth { options.limits.indexDepth = maxIndexDepth }
        if let retries {
            registry.retry.limit = retries
            registry.retry.unreachableLimit = min(retries, registry.retry.unreachableLimit)
        }
        if let timeout { registry.stallTimeout = timeout.duration }
        if let connectTimeout { registry.connectTimeout = connectTimeout.duration }
        if let requestTimeout { registry.requestTimeout = requestTimeout.duration }
    }
}

/// A number of bytes, with K, M, G or T after the number for binary multiples.
package struct ByteSize: ExpressibleByArgument {
    package var bytes: UInt64

    package init?(argument: String) {
        let shifts: [Character: UInt64] = ["K": 10, "M": 20, "G": 30, "T": 40]
        var digits = argument[...]
        var shift: UInt64 = 0
        if let last = digits.last, let unit = shifts[Character(last.uppercased())] {
            shift = unit
            digits = digits.dropLast()
        }
        // The standard library accepts `+5` as a number.
        guard digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let number = UInt64(digits) else { return nil }
        let (bytes, overflow) = number.multipliedReportingOverflow(by: 1 << shift)
        guard !overflow else { return nil }
        self.bytes = bytes
    }
}

/// Seconds from 1 to ten million, with or without a fraction.
package struct Seconds: ExpressibleByArgument {
    package var duration: Duration

    package init?(argument: String) {
        guard argument.utf8.allSatisfy({ (0x30...0x39).contains($0) || $0 == 0x2e }), let number = Double(argument), number >= 1,
            number <= 1e7
        else { return nil }
        duration = .milliseconds(Int64(number * 1000))
    }
}
