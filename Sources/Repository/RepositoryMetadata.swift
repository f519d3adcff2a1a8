internal import ComposefsBytes
public import ComposefsEROFS
public import ComposefsHashing
internal import ComposefsJSON

/// The EROFS image versions that a repository stores: the default, which names and references lead to, and extra ones.
public struct ErofsFormats: Hashable, Sendable {
    public var `default`: ErofsVersion
    /// In ascending order; an entry that equals the default has no effect.
    public var extra: [ErofsVersion]

    public init(default version: ErofsVersion, extra: [ErofsVersion] = []) {
        self.default = version
        self.extra = Set(extra).sorted { $0.rawValue < $1.rawValue }
    }

    /// The default first, then the others in ascending order: the order in which images are made.
    public var all: [ErofsVersion] { [`default`] + extra.filter { $0 != `default` } }
}

/// The content of a repository's `meta.json`.
public struct RepositoryMetadata: Hashable, Sendable {
    /// The format version that this module writes; it reads this version and 0.
    public static let currentVersion: Int64 = 1
    /// The largest file that is read, in bytes. Files in use have a few hundred.
    static let sizeLimit = 1 << 20
    /// The feature flag that belongs to V1 as the default image version.
    static let v1Feature = "v1_erofs"

    public var version: Int64
    public var algorithm: VerityAlgorithm
    public var compatible: [String]
    public var readOnlyCompatible: [String]
    public var incompatible: [String]
    /// The value of `erofs_formats`; nil if a writer older than that key wrote the file.
    public var storedFormats: ErofsFormats?

    public init(algorithm: VerityAlgorithm, formats: ErofsFormats) {
        version = Self.currentVersion
        self.algorithm = algorithm
        compatible = []
        readOnlyCompatible = formats.default == .v1 ? [Self.v1Feature] : []
        incompatible = []
        storedFormats = formats
    }

    /// The formats in effect. V2 alone with the V1 flag means V1: files from before `erofs_formats` have only the flag.
    public var formats: ErofsFormats {
        let stored = storedFormats ?? ErofsFormats(default: .v2)
        guard stored == ErofsFormats(default: .v2), readOnlyCompatible.contains(Self.v1Feature) else { return stored }
        return ErofsFormats(default: .v1)
    }

    /// `fsverity-sha256-12` or `fsverity-sha512-12`.
    public static func name(of algorithm: VerityAlgorithm) -> String { "fsverity-\(algorithm.name)-12" }

    /// The algorithm that `fsverity-<hash>-12` names; 12 is the only block size in use.
    public static func algorithm(named text: String) -> VerityAlgorithm? {
        VerityAlgorithm.allCases.first { name(of: $0) == text }
    }

    var unknownReadOnlyCompatible: [String] { readOnlyCompatible.filter { $0 != Self.v1Feature } }

    /// Checks in the order of composefs-rs: version, incompatible features. Unknown read-only-compatible features concern writers only.
    func checkReadable() throws(RepositoryError) {
        guard version <= Self.currentVersion else { throw .unsupportedVersion(version) }
        guard incompatible.isEmpty else { throw .incompatibleFeatures(incompatible) }
    }

    // MARK: Text

    /// The bytes that every writer of this format version writes: two spaces of indentation, fixed key order, one newline at the end.
    public func serialized() -> [UInt8] {
        var text = "{\n  \"version\": \(version),\n  \"algorithm\": \"\(Self.name(of: algorithm))\",\n  \"features\": {\n"
        text += "    \"compatible\": \(Self.list(compatible)),\n"
        text += "    \"read-only-compatible\": \(Self.list(readOnlyCompatible)),\n"
        text += "    \"incompatible\": \(Self.list(incompatible))\n  }"
        let stored = storedFormats ?? ErofsFormats(default: .v2)
        text += ",\n  \"erofs_formats\": {\n    \"default\": \(stored.default.rawValue)"
        if !stored.extra.isEmpty {
            text += ",\n    \"extra\": [\n" + stored.extra.map { "      \($0.rawValue)" }.joined(separator: ",\n") + "\n    ]"
        }
        text += "\n  }\n}\n"
        return Array(text.utf8)
    }

    private static func list(_ features: [String]) -> String {
        guard !features.isEmpty else { return "[]" }
        let lines = features.map { "      " + String(decoding: JSONValue.string($0).serialized(), as: UTF8.self) }
        return "[\n" + lines.joined(separator: ",\n") + "\n    ]"
    }

    /// Reads a file of any format version as far as it can be understood; `checkReadable` decides whether it may be used.
    public init(parsing bytes: [UInt8]) throws(RepositoryError) {
        guard bytes.count <= Self.sizeLimit else { throw .metadata(.tooLarge(size: UInt64(bytes.count), limit: Self.sizeLimit)) }
        let value: JSONValue
        do { value = try JSONValue.parse(bytes) } catch { throw .metadata(.invalidJSON(error)) }
        guard let object = value.object else { throw .metadata(.notObject) }
        guard let version = object["version"] else { throw .metadata(.missingMember("version", of: nil)) }
        guard let number = version.int64, (0...Int64(UInt32.max)).contains(number) else {
            throw .metadata(.wrongType(member: "version", wanted: .number32))
        }
        self.version = number
        guard let name = object["algorithm"]?.string else { throw .metadata(.wrongType(member: "algorithm", wanted: .text)) }
        guard let algorithm = Self.algorithm(named: name) else {
            throw .metadata(.unknownAlgorithm(name))
        }
        self.algorithm = algorithm
        let features = try Self.member("features", of: object)
        compatible = try Self.strings("compatible", of: features)
        readOnlyCompatible = try Self.strings("read-only-compatible", of: features)
        incompatible = try Self.strings("incompatible", of: features)
        storedFormats = try Self.formats(of: object)
    }

    private static func member(_ key: String, of object: JSONObject) throws(RepositoryError) -> JSONObject? {
        guard let value = object[key] else { return nil }
        guard let member = value.object else { throw .metadata(.wrongType(member: key, wanted: .object)) }
        return member
    }

    private static func strings(_ key: String, of features: JSONObject?) throws(RepositoryError) -> [String] {
        guard let value = features?[key] else { return [] }
        guard let array = value.array else { throw .metadata(.wrongType(member: "features.\(key)", wanted: .array)) }
        var list: [String] = []
        for element in array {
            guard let text = element.string else { throw .metadata(.wrongType(member: "features.\(key)", wanted: .listOfTexts)) }
            list.append(text)
        }
        return list
    }

    private static func formats(of object: JSONObject) throws(RepositoryError) -> ErofsFormats? {
        guard let formats = try member("erofs_formats", of: object) else { return nil }
        guard let value = formats["default"] else { throw .metadata(.missingMember("default", of: "erofs_formats")) }
        var extra: [ErofsVersion] = []
        if let list = formats["extra"] {
            guard let array = list.array else { throw .metadata(.wrongType(member: "erofs_formats.extra", wanted: .array)) }
            for element in array { extra.append(try erofsVersion(element)) }
        }
        return ErofsFormats(default: try erofsVersion(value), extra: extra)
    }

    private static func erofsVersion(_ value: JSONValue) throws(RepositoryError) -> ErofsVersion {
        guard let number = value.int64, let raw = UInt32(exactly: number), let version = ErofsVersion(rawValue: raw) else {
            throw .metadata(.unknownImageVersion)
        }
        return version
    }
}
