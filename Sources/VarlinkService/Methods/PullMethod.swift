import ComposefsBytes
import ComposefsConcurrency
import ComposefsHashing
import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsOCI
import ComposefsVarlink

extension Session {
    /// Pulls on a thread of its own, while this one sends the progress. A client that does not read it does not hold up the pull: events wait,
    /// and newer ones replace older ones.
    func pull(_ call: ServiceCall) throws -> MethodReply {
        var parameters = call.parameters
        let store = try store(&parameters)
        let reference = try reference(&parameters)
        let name = try parameters.optionalString("name").map { ByteString($0) }
        let isBootable = try parameters.bool("bootable")
        let filtering = try filtering(&parameters)
        let expected = try parameters.optionalString("expected_digest")
        try parameters.finish()

        var pull = PullOptions(name: name)
        pull.policy = .always
        pull.signaturePolicy = try LoadedPolicy.ofHost(options.signaturePolicy)
        pull.cancellation = call.cancellation
        pull.bootImages = try bootImages(isBootable, filtering, expected)
        if let name { try ImageTag.check(name) }
        let progress = Guarded(PullProgress())
        if call.wantsMore { pull.observer = { event in progress.change { event.join(&$0.events) } } }
        var registry = RegistryOptions()
        registry.recordsChoices = false
        if call.wantsMore { registry.warn = { text in progress.change { $0.messages.append(text) } } }

        let isStarted = startThread("pull") { [pull, registry] in
            let outcome = Result<PullResult, any Error> { try store.pull(reference, pull, registry: registry) }
            progress.change { $0.outcome = outcome }
        }
        guard isStarted else { throw SystemError(operation: "start a thread", errno: .tryAgain) }
        do {
            try sendProgress(progress, call)
        } catch {
            // The client is gone. The pull must have ended before the handle is closed.
            call.cancellation.cancel()
            progress.wait { state, _ in state.outcome == nil ? nil : () }
            throw error
        }
        let result = try progress.wait { state, _ in state.outcome }.get()
        return MethodReply(["completed": Self.completed(result)])
    }

    private func reference(_ parameters: inout ParameterReader) throws -> String {
        let image = try parameters.string("image")
        let localFetch = try parameters.string("local_fetch")
        let root = try parameters.optionalString("storage_root")
        let prefix = "containers-storage:"
        if ["zerocopy", "zero-copy"].contains(localFetch), image.hasPrefix(prefix) {
            throw MethodError.invalidRequest("local_fetch: the files of containers-storage are copied, never shared")
        }
        guard let root else { return image }
        guard image.hasPrefix(prefix), !image.hasPrefix(prefix + "[") else {
            throw MethodError.invalidRequest("storage_root: the image is not one in \(prefix)")
        }
        guard root.hasPrefix("/"), !root.contains(where: { "+:]".contains($0) }) else {
            throw MethodError.invalidRequest("storage_root: \(ByteString(root)) is no absolute path without +, : and ]")
        }
        return prefix + "[overlay@\(root)]" + image.dropFirst(prefix.count)
    }

    private func bootImages(_ isBootable: Bool, _ filtering: XattrFiltering?, _ expected: String?) throws -> BootImageRequest? {
        guard let expected else { return isBootable ? .all(filtering ?? .allowlistOnly) : nil }
        guard isBootable else { throw MethodError.invalidRequest("expected_digest needs bootable") }
        guard filtering == nil else { throw MethodError.invalidRequest("expected_digest tries every xattrs, and excludes it") }
        guard let id = ObjectID(hex: Array(expected.utf8)) else {
            throw MethodError.invalidDigest("expected_digest: \(ByteString(expected)) is no image's identifier")
        }
        return .matching(id)
    }

    /// Returns once the pull has ended and its progress is sent.
    private func sendProgress(_ progress: Guarded<PullProgress>, _ call: ServiceCall) throws {
        while true {
            let (replies, hasEnded) = progress.wait { state, _ -> ([JSONValue], Bool)? in
                guard !state.isEmpty || state.outcome != nil else { return nil }
                return (state.take(), state.outcome != nil)
            }
            for reply in replies { try call.sendProgress(reply) }
            if hasEnded { return }
            // Bytes arrive often: more than ten replies a second for a layer are of no use.
            _ = progress.wait(until: .now + .milliseconds(100)) { $0.outcome == nil ? nil : () }
        }
    }

    private static func completed(_ result: PullResult) -> JSONValue {
        let counts = result.statistics
        var completed: JSONValue = [
            "manifest_digest": .string(result.manifestDigest.description), "config_digest": .string(result.configDigest.description),
            "manifest_verity": .string(result.manifestStream.hex), "config_verity": .string(result.configStream.hex),
            "stats": .string(
                "\(counts.newObjects) new + \(counts.presentObjects) present; \(humanBytes(counts.storedBytes)) stored, "
                    + "\(humanBytes(counts.inlineBytes)) in line"),
        ]
        if let boot = result.bootImage {
            completed["boot_image"] = .string(boot.id.hex)
            completed["boot_image_mode"] = .string(boot.filtering.rawValue)
            completed["boot_image_format_version"] = .string("V\(boot.version.rawValue)")
        }
        return completed
    }
}

/// What a pull has reported and no reply has told.
private struct PullProgress {
    var events: [PullEvent] = []
    var messages: [String] = []
    var outcome: Result<PullResult, any Error>?

    var isEmpty: Bool { events.isEmpty && messages.isEmpty }

    mutating func take() -> [JSONValue] {
        defer { (events, messages) = ([], []) }
        return messages.map { ["message": .string($0)] } + events.compactMap(\.varlink)
    }
}

extension PullEvent {
    /// The reply about the event; nil if there is none.
    fileprivate var varlink: JSONValue? {
        guard case .layer(_, let digest) = component else { return message.map { ["message": .string($0)] } }
        let id = JSONValue.string(digest.description)
        switch phase {
        case .started: return ["started": ["id": id, "total": JSONValue(bytesTotal), "unit": "Bytes"]]
        case .bytes, .resumed: return ["progress": ["id": id, "fetched": JSONValue(bytesDone), "total": JSONValue(bytesTotal)]]
        case .skipped: return ["skipped": ["id": id]]
        case .stored: return ["done": ["id": id, "transferred": JSONValue(bytesDone)]]
        case .waiting: return ["message": .string("layer \(digest): waiting for another pull of it")]
        case .retrying(let reason, let delay): return ["message": .string("layer \(digest): \(reason); next attempt in \(delay)")]
        default: return nil
        }
    }

    /// For an event of the whole image.
    private var message: String? {
        switch phase {
        case .resolving(let reference): "resolving \(reference)"
        case .resolved(let found): "manifest \(found.manifest), \(found.layers.count) layers"
        case .merging: "merging the layers"
        case .writingImage: "writing the EROFS image"
        case .publishing: "publishing the image"
        case .tagMoved(let old, let new): "the tag moves from \(old) to \(new)"
        default: nil
        }
    }
}
