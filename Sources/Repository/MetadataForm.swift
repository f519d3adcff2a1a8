internal import ComposefsBytes
internal import ComposefsEROFS
internal import ComposefsJSON
internal import ComposefsLinuxSystem

// The forms that a readable `meta.json` may have. Programs write it in one form, and people edit it. A valid file in another form is not
// damaged, and `Repository.normalizeMetadata` brings it into that form. In an insecure repository only the file's own bytes show whether it
// is damaged, so fsck reports what neither a person nor a program would have written.

extension RepositoryMetadata {
    /// The members that this release knows, by the object that holds them.
    private static let knownKeys: [(object: String?, keys: [String])] = [
        (nil, ["version", "algorithm", "features", "erofs_formats"]),
        ("features", ["compatible", "read-only-compatible", "incompatible"]),
        ("erofs_formats", ["default", "extra"]),
    ]
    /// The largest number of letters in which a damaged or mistyped key differs.
    private static let keyTolerance = 2

    /// The faults of a file that can be read.
    ///
    /// White space, the order of members, missing optional members and unknown members are no fault. The exception is an unknown member
    /// whose name is almost that of a missing known one: it is a damaged key.
    static func faults(in bytes: [UInt8]) -> [MetadataFault] {
        guard let metadata = try? RepositoryMetadata(parsing: bytes), let object = (try? JSONValue.parse(bytes))?.object else { return [] }
        var faults: [MetadataFault] = []
        if bytes + [UInt8(ascii: "\n")] == metadata.serialized() { faults.append(.missingNewline) }
        for (name, known) in knownKeys {
            guard let members = name.map({ object[$0]?.object }) ?? object else { continue }
            for key in members.keys where !known.contains(key) {
                guard let meant = known.first(where: { members[$0] == nil && differs($0, from: key) <= keyTolerance }) else { continue }
                faults.append(.damagedKey(key, of: name, meant: meant))
            }
        }
        if metadata.version == 0 { faults.append(.versionZero) }
        for feature in metadata.unknownReadOnlyCompatible {
            faults.append(.unknownReadOnlyFeature(feature))
        }
        if metadata.storedFormats?.default == .v0, metadata.readOnlyCompatible.contains(v1Feature) {
            faults.append(.contradictoryFormats(feature: v1Feature))
        }
        return faults
    }

    /// The number of letters to insert, remove or replace that turns one text into the other.
    private static func differs(_ text: String, from other: String) -> Int {
        let (first, second) = (Array(text.utf8), Array(other.utf8))
        // The size of the file limits the length of keys, but not the cost of this.
        guard abs(first.count - second.count) <= keyTolerance else { return .max }
        var row = Array(0...second.count)
        for (i, left) in first.enumerated() {
            var diagonal = row[0]
            row[0] = i + 1
            for (j, right) in second.enumerated() {
                let replaced = diagonal + (left == right ? 0 : 1)
                diagonal = row[j + 1]
                row[j + 1] = min(replaced, row[j] + 1, diagonal + 1)
            }
        }
        return row[second.count]
    }

    /// The text in the form that programs write: known members first, in their order and with the feature that belongs to the default
    /// format, then unknown members, unchanged. Nil if the file has that form already.
    static func normalized(_ bytes: [UInt8]) throws(RepositoryError) -> [UInt8]? {
        var metadata = try RepositoryMetadata(parsing: bytes)
        guard let object = (try? JSONValue.parse(bytes))?.object else { return nil }
        let formats = metadata.formats
        metadata.storedFormats = formats
        metadata.readOnlyCompatible.removeAll { $0 == v1Feature }
        if formats.default == .v1 { metadata.readOnlyCompatible.insert(v1Feature, at: 0) }
        let written = metadata.serialized()
        guard var document = (try? JSONValue.parse(written))?.object else { return nil }
        var hasUnknown = false
        for (name, known) in knownKeys {
            guard let members = name.map({ object[$0]?.object }) ?? object else { continue }
            let unknown = members.filter { !known.contains($0.key) }
            guard !unknown.isEmpty else { continue }
            hasUnknown = true
            if let name {
                document = JSONObject(
                    document.members.map { $0.key == name ? (name, .object(JSONObject(($0.value.object?.members ?? []) + unknown))) : $0 })
            } else {
                document = JSONObject(document.members + unknown)
            }
        }
        let text = hasUnknown ? JSONValue.object(document).prettyBytes + [UInt8(ascii: "\n")] : written
        return text == bytes ? nil : text
    }
}

extension Repository {
    /// Rewrites `meta.json` if it is valid but not in the form that programs write, because a person edited it or an older program wrote
    /// it. Its meaning stays the same, and unknown members are kept.
    ///
    /// - Returns: whether it was written.
    /// - Throws: `RepositoryError.metadata` if the file seems to be damaged: it is left unchanged.
    @discardableResult
    public func normalizeMetadata() throws(RepositoryError) -> Bool {
        guard let bytes = try Self.metadataBytes(root), let text = try RepositoryMetadata.normalized(bytes) else { return false }
        if let fault = RepositoryMetadata.faults(in: bytes).first { throw .metadata(fault) }
        try requireWritable()
        try Self.replaceMetadata(text, algorithm, root, path, isSecure: isSecure, options.signer)
        return true
    }
}
