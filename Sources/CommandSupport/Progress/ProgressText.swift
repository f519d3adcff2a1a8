import ComposefsBytes
package import ComposefsOCI

extension PullEvent: ShownEvent {
    package var isFrequent: Bool { phase == .bytes }

    package var line: String? {
        func layer(_ what: String) -> String? {
            guard case .layer(let index, let digest) = component else { return nil }
            return "layer \(index + 1) \(digest): \(what)"
        }
        switch phase {
        case .resolving(let reference): return "resolving " + Output.printable(ByteString(reference))
        case .resolved(let found): return "manifest \(found.manifest), \(found.layers.count) layers, \(humanBytes(bytesTotal))"
        case .skipped(.present): return layer("present")
        case .skipped(.repeated(let first)): return layer("the same as layer \(first + 1)")
        case .stored: return layer("stored")
        case .waiting: return layer("another process reads it; waiting")
        case .retrying(let reason, let delay):
            return layer("trying again in \(ProgressRenderer.timeText(delay / .seconds(1))): \(Output.printable(ByteString(reason)))")
        case .resumed(let offset): return layer("continues at \(humanBytes(offset))")
        case .merging: return "all layers are stored; merging them"
        case .writingImage: return nil
        case .publishing: return "image written; making it durable"
        case .tagMoved(let before, let now): return "tag moved from \(before) to \(now)"
        case .stitching(let kind): return "all layers are merged; writing the \(kind.rawValue) disk"
        case .diskStored(let kind): return "\(kind.rawValue) disk written"
        case .done: return "done"
        case .queued, .started, .bytes, .verified, .materializing, .materialized: return nil
        }
    }
}
