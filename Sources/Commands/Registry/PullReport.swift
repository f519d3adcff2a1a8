import ComposefsCommandSupport
import ComposefsJSON
import ComposefsOCI

/// The result of a pull.
struct PullReport: CommandReport {
    var result: PullResult
    /// Whether it is one of several.
    var showsPlatform: Bool
    /// Whether referrers were requested.
    var showsReferrers: Bool

    var lines: [String] {
        let counts = result.statistics
        var lines: [String] = []
        if showsPlatform, let platform = result.platform { lines.append("platform  \(platform)") }
        lines += ["manifest  \(result.manifestDigest)", "config  \(result.configDigest)"]
        if let id = result.imageID { lines.append("image  \(id)") }
        if let boot = result.bootImage { lines.append("boot image  \(boot.id)") }
        for disk in result.disks {
            for file in disk.entryFiles { lines.append("disk  \(disk.request.kind.rawValue)  \(Output.printable(file.path))") }
        }
        lines.append("tagged  \(Output.printable(result.name))")
        if let other = result.otherName { lines.append("tagged  \(Output.printable(other))") }
        lines += [
            "layers  \(result.newLayers) new + \(result.presentLayers) present",
            "objects  \(counts.newObjects) new + \(counts.presentObjects) present; \(humanBytes(counts.storedBytes)) stored, "
                + "\(humanBytes(counts.inlineBytes)) in line",
        ]
        if showsReferrers { lines.append("referrers  \(result.referrers.count) stored") }
        if result.signatures.signed > 0 { lines.append("signed  \(result.signatures.signed)") }
        return lines
    }

    var json: JSONValue {
        let counts = result.statistics
        let layers = result.layers.map { layer -> JSONValue in
            [
                "diffId": .text(layer.diffID), "digest": .text(layer.digest), "size": JSONValue(layer.size),
                "mediaType": .string(layer.mediaType),
            ]
        }
        var document: JSONValue = [
            "manifestDigest": .text(result.manifestDigest), "configDigest": .text(result.configDigest),
            "imageId": .text(result.imageID?.hex), "name": .string(result.name.jsonText), "layersNew": .count(result.newLayers),
            "layersPresent": .count(result.presentLayers), "objectsNew": .count(counts.newObjects),
            "objectsPresent": .count(counts.presentObjects), "bytesStored": JSONValue(counts.storedBytes),
            "bytesInline": JSONValue(counts.inlineBytes), "objectsSigned": .count(result.signatures.signed),
            "outcome": .string(result.outcome.name), "previousManifestDigest": .text(result.previousManifestDigest),
            "platform": .text(result.platform), "layers": .array(layers), "runtime": result.config.map { $0.runtime.json } ?? .null,
        ]
        if let boot = result.bootImage { document["bootImage"] = boot.json }
        if !result.disks.isEmpty {
            document["disks"] = .array(
                result.disks.map { disk in
                    [
                        "kind": .string(disk.request.kind.rawValue),
                        "files": .array(disk.files.map { ["path": .string($0.path.jsonText), "size": JSONValue($0.size)] }),
                    ]
                })
        }
        if let other = result.otherName { document["otherName"] = .string(other.jsonText) }
        if showsReferrers {
            document["referrers"] = .texts(result.referrers)
            document["referrersLeftOut"] = .texts(result.referrersLeftOut)
            document["referrersUnavailable"] = problems(result.referrersUnavailable)
        }
        return document
    }
}

/// The results for all platforms.
struct PullReports: CommandReport {
    var reports: [PullReport]

    private var index: PulledIndex? { reports.first?.result.index }

    var lines: [String] {
        let images = Array(reports.map(\.lines).joined(separator: [""]))
        guard let index else { return images }
        let missing = index.leftOut.isEmpty ? "" : "; \(index.leftOut.count) left out"
        return images + [
            "", "index  \(index.digest)", "named  \(Output.printable(index.name))", "manifests  \(index.manifests.count) stored\(missing)",
        ]
    }

    var json: JSONValue {
        var document: JSONValue = ["images": .array(reports.map(\.json))]
        if let index {
            document["index"] = [
                "digest": .text(index.digest), "name": .string(index.name.jsonText), "manifests": .texts(index.manifests),
                "leftOut": leftOut(index.leftOut),
            ]
        }
        return document
    }
}

/// What an index lists and was left out, in JSON.
func leftOut(_ missing: [PulledIndex.Missing]) -> JSONValue {
    .array(missing.map { ["digest": .text($0.digest), "reason": .string($0.reason)] })
}

extension PullResult.Outcome {
    /// The name in JSON.
    fileprivate var name: String {
        switch self {
        case .pulled: "pulled"
        case .present: "present"
        case .current: "current"
        case .unreachable: "unreachable"
        }
    }
}

extension RuntimeConfig {
    /// How the image is run, from its config; null for missing members.
    var json: JSONValue {
        func texts(_ list: [String]?) -> JSONValue { list.map { .array($0.map { .string($0) }) } ?? .null }
        func text(_ text: String?) -> JSONValue { text.map { .string($0) } ?? .null }
        let labels = labels.sorted { $0.key < $1.key }.map { (key: $0.key, value: JSONValue.string($0.value)) }
        return [
            "env": texts(environment), "entrypoint": texts(entrypoint), "cmd": texts(command), "user": text(user),
            "workingDirectory": text(workingDirectory), "exposedPorts": texts(exposedPorts), "volumes": texts(volumes),
            "labels": .object(JSONObject(labels)), "stopSignal": text(stopSignal), "healthcheck": healthcheck ?? .null,
        ]
    }
}
