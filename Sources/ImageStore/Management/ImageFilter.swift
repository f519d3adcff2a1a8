public import ComposefsBytes
import ComposefsFileTree

/// A condition on images, written `KEY=VALUE`, with the keys of other container tools.
public struct ImageFilter: Sendable, Hashable {
    /// What a filter looks at.
    public enum Key: String, Sendable, CaseIterable {
        /// The name, or a part of it that a user would write, matches a pattern; see `GlobPattern`.
        case reference
        /// The same.
        case name
        /// Built before another image, or before a time.
        case before
        /// Built after another image, or after a time.
        case since
        /// The config has a label (`NAME`), or a label with this value (`NAME=VALUE`).
        case label
        /// Without a name (`true`) or with one (`false`).
        case dangling
        /// In use (`true`) or not (`false`): mounted, booted, deployed, in a boot entry.
        case inUse = "in-use"
        /// The architecture, in OCI's or the kernel's spelling.
        case arch
        /// The operating system.
        case os
    }

    public var key: Key
    public var value: ByteString

    public init(_ key: Key, _ value: ByteString) {
        self.key = key
        self.value = value
    }

    /// - Throws: `ImageFilterError.unknownKey`, `.noValue`, `.notBoolean`.
    public init(parsing text: ByteString) throws(ImageFilterError) {
        let parts = text.bytes.split(separator: UInt8(ascii: "="), maxSplits: 1, omittingEmptySubsequences: false)
        let name = ByteString(parts[0])
        guard let key = name.utf8Text.flatMap({ Key(rawValue: $0) }) else { throw .unknownKey(name) }
        guard parts.count == 2, !parts[1].isEmpty else { throw .noValue(key) }
        self.init(key, ByteString(parts[1]))
        if key == .dangling || key == .inUse { _ = try truth() }
    }

    func truth() throws(ImageFilterError) -> Bool {
        switch value.utf8Text?.lowercased() {
        case "true", "1", "yes": true
        case "false", "0", "no": false
        default: throw .notBoolean(key, value)
        }
    }
}

/// Why text is not a filter.
public enum ImageFilterError: Error, Sendable, Hashable, CustomStringConvertible {
    case unknownKey(ByteString)
    case noValue(ImageFilter.Key)
    /// The value is neither `true` nor `false`.
    case notBoolean(ImageFilter.Key, ByteString)
    /// No image with a creation time has this name, and it is no time itself.
    case noTime(ImageFilter.Key, ByteString)

    public var description: String {
        switch self {
        case .unknownKey(let name):
            "unknown filter \"\(name)\"; known are \(ImageFilter.Key.allCases.map(\.rawValue).joined(separator: ", "))"
        case .noValue(let key): "the filter \(key.rawValue) needs a value: \(key.rawValue)=VALUE"
        case .notBoolean(let key, let value): "the filter \(key.rawValue) is true or false, not \"\(value)\""
        case .noTime(let key, let value):
            "the filter \(key.rawValue) needs an image with a creation time, or a time such as 2026-01-31T00:00:00Z: \"\(value)\" is neither"
        }
    }
}

/// Filters that have been looked up in a store. Values of one key are alternatives, labels excepted: an image must have all of them. All keys
/// must be satisfied.
public struct ImageSelection: Sendable {
    private var patterns: [GlobPattern] = []
    private var before: [Timestamp] = []
    private var since: [Timestamp] = []
    private var labels: [(name: String, value: String?)] = []
    private var dangling: Set<Bool> = []
    private var inUse: Set<Bool> = []
    private var architectures: Set<String> = []
    private var systems: Set<String> = []

    /// Whether images without a name can be selected.
    public var wantsDangling: Bool { dangling.contains(true) }
    /// Whether the selection depends on what is in use.
    public var needsUses: Bool { !inUse.isEmpty }

    /// - Throws: `ImageFilterError`; `ImageStoreError` if a name is ambiguous.
    public init(_ filters: [ImageFilter], in store: ImageStore) throws {
        for filter in filters {
            switch filter.key {
            case .reference, .name: patterns.append(GlobPattern(filter.value))
            case .before: before.append(try Self.time(filter, store))
            case .since: since.append(try Self.time(filter, store))
            case .label:
                let parts = filter.value.bytes.split(separator: UInt8(ascii: "="), maxSplits: 1, omittingEmptySubsequences: false)
                labels.append(
                    (String(decoding: parts[0], as: UTF8.self), parts.count > 1 ? String(decoding: parts[1], as: UTF8.self) : nil))
            case .dangling: dangling.insert(try filter.truth())
            case .inUse: inUse.insert(try filter.truth())
            case .arch: architectures.insert(Self.architecture(String(decoding: filter.value.bytes, as: UTF8.self)))
            case .os: systems.insert(String(decoding: filter.value.bytes, as: UTF8.self).lowercased())
            }
        }
    }

    private static func time(_ filter: ImageFilter, _ store: ImageStore) throws -> Timestamp {
        do {
            if let created = try store.get(filter.value).created { return created }
        } catch ImageStoreError.imageNotFound {
            if let time = filter.value.utf8Text.flatMap({ Timestamp(rfc3339: $0) }) { return time }
        }
        throw ImageFilterError.noTime(filter.key, filter.value)
    }

    private static func architecture(_ name: String) -> String {
        switch name.lowercased() {
        case "x86_64", "x86-64": "amd64"
        case "aarch64": "arm64"
        case "i386", "i686": "386"
        case let other: other
        }
    }

    /// - Parameter isInUse: whether the image is in use; called only if the selection depends on it.
    public func contains(_ record: ImageRecord, isInUse: () -> Bool) -> Bool {
        if !patterns.isEmpty {
            let forms = Self.forms(of: record)
            guard patterns.contains(where: { pattern in forms.contains { pattern.matches($0) } }) else { return false }
        }
        if !before.isEmpty || !since.isEmpty {
            guard let created = record.createdTime else { return false }
            guard before.isEmpty || before.contains(where: { created < $0 }) else { return false }
            guard since.isEmpty || since.contains(where: { created > $0 }) else { return false }
        }
        for (name, value) in labels {
            guard let found = record.labels[name], value == nil || value == found else { return false }
        }
        guard dangling.isEmpty || dangling.contains(record.kind == .dangling) else { return false }
        guard architectures.isEmpty || architectures.contains(Self.architecture(record.architecture)) else { return false }
        guard systems.isEmpty || systems.contains(record.os.lowercased()) else { return false }
        return inUse.isEmpty || inUse.contains(isInUse())
    }

    /// The name as it is stored, without its tag, and both without the registry, and without the registry's default namespace.
    private static func forms(of record: ImageRecord) -> [ByteString] {
        guard record.kind != .dangling else { return [] }
        var forms = [record.name, record.repositoryName]
        let library: ByteString = "docker.io/library/"
        for full in [record.name, record.repositoryName] {
            if full.hasPrefix(library) { forms.append(ByteString(Array(full.bytes.dropFirst(library.count)))) }
            guard let slash = full.bytes.firstIndex(of: UInt8(ascii: "/")) else { continue }
            let host = full.bytes[..<slash]
            let isHost = host.contains(UInt8(ascii: ".")) || host.contains(UInt8(ascii: ":")) || host.elementsEqual("localhost".utf8)
            if isHost { forms.append(ByteString(Array(full.bytes[(slash + 1)...]))) }
        }
        return forms
    }
}
