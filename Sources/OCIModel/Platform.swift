import ComposefsBytes

/// The platform of an image (image-spec, image-index.md, `platform`), in the names of the Go compiler: `linux/arm64`, `linux/arm/v7`.
public struct Platform: Hashable, Sendable, CustomStringConvertible {
    /// Empty if the document does not specify it.
    public var os: String
    /// Empty if the document does not specify it.
    public var architecture: String
    public var variant: String?
    public var osVersion: String?
    /// Required features of the system; their names have no general definition.
    public var osFeatures: [String]

    public init(os: String, architecture: String, variant: String? = nil, osVersion: String? = nil, osFeatures: [String] = []) {
        self.os = os
        self.architecture = architecture
        self.variant = variant
        self.osVersion = osVersion
        self.osFeatures = osFeatures
    }

    /// Operating systems that may be named alone, for this machine's architecture. Any other word is an architecture, for Linux.
    private static let systems: Set<String> = [
        "aix", "android", "darwin", "dragonfly", "freebsd", "illumos", "ios", "js", "linux", "macos", "nacl", "netbsd", "openbsd", "plan9",
        "solaris", "wasip1", "windows", "zos",
    ]

    /// Parses `OS/ARCH[/VARIANT]`, `ARCH` alone for Linux, or `OS` alone for this machine's architecture. The usual aliases are accepted
    /// (`x86_64`, `aarch64`, `armhf`).
    ///
    /// - Throws: `OCIError.invalidReference`.
    public init(parsing text: String) throws(OCIError) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        let isWord = { (part: String) in
            !part.isEmpty && part.utf8.allSatisfy { ByteClass.isAlphanumeric($0) || $0 == 0x5f || $0 == 0x2d || $0 == 0x2e }
        }
        guard (1...3).contains(parts.count), parts.allSatisfy(isWord) else {
            throw .invalidReference(ByteString(text), .notPlatform)
        }
        if parts.count == 1, Self.systems.contains(parts[0].lowercased()) {
            self.init(os: parts[0], architecture: Self.host.architecture, variant: Self.host.variant)
        } else if parts.count == 1 {
            self.init(os: "linux", architecture: parts[0])
        } else {
            self.init(os: parts[0], architecture: parts[1], variant: parts.count == 3 ? parts[2] : nil)
        }
        self = normalized
    }

    package init(_ fields: DocumentFields) {
        os = fields.text("os") ?? ""
        architecture = fields.text("architecture") ?? ""
        variant = fields.text("variant")
        osVersion = fields.text("os.version")
        osFeatures = fields.list("os.features") ?? []
    }

    /// This machine. On x86-64 this is the baseline: images for newer levels are selected only on request.
    public static let host = Platform(os: "linux", architecture: hostArchitecture).normalized

    /// The same as `host`: this library runs on Linux only.
    public static var hostLinux: Platform { host }

    private static var hostArchitecture: String {
        #if arch(x86_64)
            "amd64"
        #elseif arch(arm64)
            "arm64"
        #elseif arch(arm)
            "arm"
        #elseif arch(i386)
            "386"
        #elseif arch(powerpc64le)
            "ppc64le"
        #elseif arch(s390x)
            "s390x"
        #elseif arch(riscv64)
            "riscv64"
        #elseif arch(loongarch64)
            "loong64"
        #else
            "unknown"
        #endif
    }

    public var description: String {
        ByteString(([os, architecture] + (variant.map { [$0] } ?? [])).map { $0.isEmpty ? "unknown" : $0 }.joined(separator: "/"))
            .description
    }

    /// The canonical spelling of the platform, without a default variant.
    public var normalized: Platform {
        var result = self
        result.os = os.lowercased()
        if result.os == "macos" { result.os = "darwin" }
        result.architecture = architecture.lowercased()
        result.variant = variant?.lowercased()
        if result.variant == "" { result.variant = nil }
        switch result.architecture {
        case "x86_64", "x86-64": result.architecture = "amd64"
        case "aarch64": result.architecture = "arm64"
        case "i386", "i486", "i586", "i686": result.architecture = "386"
        case "armhf", "armv7l", "armv7": (result.architecture, result.variant) = ("arm", "v7")
        case "armel", "armv6l", "armv6": (result.architecture, result.variant) = ("arm", "v6")
        case "armv5l", "armv5tel", "armv5": (result.architecture, result.variant) = ("arm", "v5")
        case "armv8l": (result.architecture, result.variant) = ("arm", "v8")
        case "loongarch64": result.architecture = "loong64"
        default: break
        }
        if let number = result.variant, number.utf8.first.map({ (0x30...0x39).contains($0) }) == true { result.variant = "v" + number }
        switch (result.architecture, result.variant) {
        case ("arm64", "v8"), ("amd64", "v1"): result.variant = nil
        case ("arm", nil): result.variant = "v7"
        default: break
        }
        return result
    }

    /// Whether the entry cannot run: build tools mark attestations in this way.
    package var isUnknown: Bool { os == "unknown" || architecture == "unknown" }

    /// Whether operating system and architecture are both specified.
    package var isComplete: Bool { !os.isEmpty && !architecture.isEmpty && !isUnknown }

    /// Whether the candidate, which may be incomplete, can run here.
    package func mayFit(_ candidate: Platform) -> Bool {
        let (wanted, offered) = (normalized, candidate.normalized)
        return (offered.os.isEmpty || offered.os == wanted.os)
            && (offered.architecture.isEmpty || offered.architecture == wanted.architecture) && hasFeatures(of: candidate)
    }

    /// Whether this platform has the features that the candidate requires. On Linux they stand for special snapshotters that a runtime must
    /// have (nydus), so there are none. On Windows they name features that every full installation has.
    private func hasFeatures(of candidate: Platform) -> Bool { candidate.osFeatures.isEmpty || normalized.os == "windows" }

    /// Whether the operating system alone is enough to run the image.
    package var isOrdinary: Bool { hasFeatures(of: self) }

    /// How well an image for `candidate` runs here: 0 for the same platform, larger for older variants, nil if it does not run.
    public func rank(of candidate: Platform) -> Int? {
        let (wanted, offered) = (normalized, candidate.normalized)
        guard wanted.os == offered.os, wanted.architecture == offered.architecture, hasFeatures(of: candidate) else { return nil }
        if let version = wanted.osVersion, offered.osVersion != version { return nil }
        if wanted.variant == offered.variant { return 0 }
        guard let have = wanted.level, let needs = offered.level, needs < have else { return nil }
        return have - needs
    }

    /// The variant as a number, if newer machines can run images for older ones.
    private var level: Int? {
        let digits = variant.flatMap { $0.hasPrefix("v") ? Int($0.dropFirst()) : nil }
        switch architecture {
        case "amd64": return variant == nil ? 1 : digits
        case "arm64": return variant == nil ? 8 : digits
        case "arm": return digits
        default: return nil
        }
    }
}

package enum ByteClass {
    package static func isAlphanumeric(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5a, 0x61...0x7a: true
        default: false
        }
    }

    package static func isLowerAlphanumeric(_ byte: UInt8) -> Bool { isAlphanumeric(byte) && !(0x41...0x5a).contains(byte) }
}
