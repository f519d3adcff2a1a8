package import ComposefsJSON
package import ComposefsOCI

extension PullEvent {
    /// | `event` | additional keys |
    /// | --- | --- |
    /// | `resolving` | `reference` |
    /// | `resolved` | `manifestDigest`, `layers`: array of `digest`, `size` |
    /// | `merging`, `writingImage`, `publishing`, `done` | |
    /// | `tagMoved` | `from`, `to`: manifest digests |
    /// | `stitching`, `diskStored`, `layerMaterialized` | `kind` of the disk |
    /// | `layerMaterializing` | `kind` of the disk, `bytes`: the size of the layer's image |
    /// | `layerQueued`, `layerStarted`, `layerVerified`, `layerStored`, `layerWaiting` | |
    /// | `layerProgress` | `received`: the same as `bytesDone` |
    /// | `layerPresent` | `sameAs`: index of the equal layer, if that is why this one is not read |
    /// | `layerRetrying` | `reason`, `delay` in seconds |
    /// | `layerResumed` | `from`: byte of the blob |
    ///
    /// Every event has `bytesDone` and `bytesTotal`; those of a layer have `layer`, counted from 0, and its blob's `digest`.
    package var json: JSONValue {
        var members: [(key: String, value: JSONValue)] = []
        func name(_ event: EventName) { members.append(("event", event.json)) }
        switch phase {
        case .resolving(let reference):
            name(.resolving)
            members.append(("reference", .string(reference)))
        case .resolved(let found):
            name(.resolved)
            members.append(("manifestDigest", .string(found.manifest.description)))
            let layers = found.layers.map { layer -> JSONValue in
                ["digest": .string(layer.digest.description), "size": JSONValue(layer.size)]
            }
            members.append(("layers", .array(layers)))
        case .merging: name(.merging)
        case .writingImage: name(.writingImage)
        case .publishing: name(.publishing)
        case .tagMoved(let before, let now):
            name(.tagMoved)
            members.append(("from", .string(before.description)))
            members.append(("to", .string(now.description)))
        case .stitching(let kind):
            name(.stitching)
            members.append(("kind", .string(kind.rawValue)))
        case .diskStored(let kind):
            name(.diskStored)
            members.append(("kind", .string(kind.rawValue)))
        case .done: name(.done)
        case .queued: name(.layerQueued)
        case .started: name(.layerStarted)
        case .bytes:
            name(.layerProgress)
            members.append(("received", JSONValue(bytesDone)))
        case .verified: name(.layerVerified)
        case .stored: name(.layerStored)
        case .materializing(let kind, let byteCount):
            name(.layerMaterializing)
            members.append(("kind", .string(kind.rawValue)))
            members.append(("bytes", JSONValue(byteCount)))
        case .materialized(let kind):
            name(.layerMaterialized)
            members.append(("kind", .string(kind.rawValue)))
        case .skipped(let why):
            name(.layerPresent)
            if case .repeated(let first) = why { members.append(("sameAs", .integer(Int64(first)))) }
        case .waiting: name(.layerWaiting)
        case .retrying(let reason, let delay):
            name(.layerRetrying)
            members.append(("reason", .string(reason)))
            members.append(("delay", .double(delay / .seconds(1))))
        case .resumed(let offset):
            name(.layerResumed)
            members.append(("from", JSONValue(offset)))
        }
        if case .layer(let index, let digest) = component {
            members.append(("layer", .integer(Int64(index))))
            members.append(("digest", .string(digest.description)))
        }
        members.append(("bytesDone", JSONValue(bytesDone)))
        members.append(("bytesTotal", JSONValue(bytesTotal)))
        return .object(JSONObject(members))
    }
}
