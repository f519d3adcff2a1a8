import ComposefsCommandSupport
import ComposefsOCI

// Text and JSON of the repository's reports. The keys are those of composefs-rs.

extension FsckReport {
    private var metadataState: String {
        let isFaulty = problems.contains { $0.path == "meta.json" }
        return isFaulty ? "error" : hasMetadata ? "ok" : "absent"
    }

    /// The lines before the verdict.
    var counts: [String] {
        var lines = [
            "meta.json: \(metadataState)", "objects: \(objectsChecked - objectsCorrupted)/\(objectsChecked) ok",
            "streams: \(streamsChecked - streamsCorrupted)/\(streamsChecked) ok",
            "images: \(imagesChecked - imagesCorrupted)/\(imagesChecked) ok",
        ]
        if brokenLinks > 0 { lines.append("broken symlinks: \(brokenLinks)") }
        if missingObjects > 0 { lines.append("missing objects: \(missingObjects)") }
        return lines + notes.map { "note: \($0)" }
    }

    var json: JSONValue {
        [
            "ok": .bool(isOK), "hasMetadata": .bool(hasMetadata), "objectsChecked": .count(objectsChecked),
            "objectsCorrupted": .count(objectsCorrupted), "streamsChecked": .count(streamsChecked),
            "streamsCorrupted": .count(streamsCorrupted), "imagesChecked": .count(imagesChecked),
            "imagesCorrupted": .count(imagesCorrupted), "brokenLinks": .count(brokenLinks), "missingObjects": .count(missingObjects),
            "errors": .array(problems.map(\.json)),
        ]
    }
}

extension FsckProblem {
    var json: JSONValue {
        var members: [(key: String, value: JSONValue)] = [("type", .string(kind.rawValue)), ("path", .string(path.description))]
        if let reference { members.append(("refName", .string(reference))) }
        if let object { members.append((kind == .objectDigestMismatch ? "measured" : "objectId", .string(object.hex))) }
        if let detail { members.append(("detail", .string(detail))) }
        return .object(JSONObject(members))
    }
}

extension ImageUse {
    var json: JSONValue {
        [
            "use": .string(kind.rawValue), "place": .string(location.jsonText),
            "process": process.map { .integer(Int64($0.number)) } ?? .null,
        ]
    }
}

extension GarbageReport {
    var json: JSONValue {
        var document: JSONValue = [
            "objectsRemoved": .count(objectsRemoved), "bytesRemoved": JSONValue(bytesRemoved), "streamsRemoved": .count(streamsRemoved),
            "imagesRemoved": .count(imagesRemoved), "temporariesRemoved": .count(temporariesRemoved),
            "danglingReferences": .array(danglingReferences.map { .string($0.description) }),
        ]
        // Only present if there are any: older scripts compare the whole document.
        if !imagesInUse.isEmpty {
            document["imagesInUse"] = .array(imagesInUse.map { ["imageId": .text($0.id), "uses": .array($0.uses.map(\.json))] })
        }
        if !imagesKeptForMounts.isEmpty {
            document["imagesKeptForMounts"] = .array(imagesKeptForMounts.map { .text($0) })
            document["unidentifiedMounts"] = .array(unidentifiedMounts.map(\.json))
        }
        return document
    }
}

extension UnidentifiedMount {
    var json: JSONValue {
        var document = use.json
        document["source"] = .string(source.jsonText)
        document["isOwn"] = .bool(isOwn)
        return document
    }
}
