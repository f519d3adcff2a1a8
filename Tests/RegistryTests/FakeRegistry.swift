import ComposefsBytes
import ComposefsHashing
import ComposefsTestSupport
import Synchronization

@testable import ComposefsRegistry

/// A registry in memory that accepts pushes as the distribution specification says, and misbehaves if a test wants it to.
final class FakeRegistry: Sendable {
    struct State {
        /// By repository and digest.
        var blobs: [String: [UInt8]] = [:]
        var uploads: [String: [UInt8]] = [:]
        /// By repository and tag or digest.
        var manifests: [String: [UInt8]] = [:]
        var uploadCount = 0
        /// The number of bytes of blobs that were sent.
        var received = 0
    }

    /// The response to use instead, for a request; nil for the correct one.
    typealias Script = @Sendable (ScriptedServer.Request) -> [ScriptedServer.Action]?

    let server: ScriptedServer
    private let state: Box

    private final class Box: Sendable {
        let state = Mutex(State())
    }

    init(
        mounts: Bool = true, tellsSubject: Bool = false, breaking: @escaping ScriptedServer.Breaking = { _ in nil },
        script: @escaping Script = { _ in nil }
    ) {
        let box = Box()
        state = box
        server = ScriptedServer(breaking: breaking) { request in
            if let actions = script(request) { return actions }
            return box.state.withLock { Self.answer(request, &$0, mounts: mounts, tellsSubject: tellsSubject) }
        }
    }

    var contents: State { state.state.withLock { $0 } }
    func add(_ blob: [UInt8], to repository: String) {
        state.state.withLock { $0.blobs["\(repository)@\(ContentDigest.of(blob))"] = blob }
    }

    func count(_ method: String, _ part: String) -> Int { server.requests.count { $0.method == method && $0.path.contains(part) } }

    private static func answer(
        _ request: ScriptedServer.Request, _ state: inout State, mounts: Bool, tellsSubject: Bool
    ) -> [ScriptedServer.Action] {
        let parts = request.path.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard parts.count >= 5, parts[1] == "v2" else { return [.reply(404)] }
        let query = request.query.split(separator: "&").reduce(into: [String: String]()) { result, part in
            let sides = part.split(separator: "=", maxSplits: 1).map(String.init)
            result[sides[0]] =
                sides.count > 1
                ? sides[1].split(separator: "%3A").joined(separator: ":").split(separator: "%2F").joined(separator: "/") : ""
        }
        if let at = parts.lastIndex(of: "manifests") {
            let key = parts[2..<at].joined(separator: "/") + ":" + parts[at + 1]
            guard request.method == "PUT" else {
                return [state.manifests[key].map { .reply(200, ["Content-Type": "application/json"], $0) } ?? .reply(404)]
            }
            let digest = ContentDigest.of(request.body)
            state.manifests[key] = request.body
            var headers = ["Docker-Content-Digest": digest.description]
            if tellsSubject { headers["OCI-Subject"] = digest.description }
            return [.reply(201, headers)]
        }
        guard let at = parts.lastIndex(of: "blobs") else { return [.reply(404)] }
        let repository = parts[2..<at].joined(separator: "/")
        guard parts[at + 1] == "uploads" else {
            guard let blob = state.blobs["\(repository)@\(parts[at + 1])"] else { return [.reply(404)] }
            return [.reply(200, ["Content-Length": "\(blob.count)"])]
        }
        return upload(request, &state, repository, name: parts.last ?? "", query, mounts: mounts)
    }

    private static func upload(
        _ request: ScriptedServer.Request, _ state: inout State, _ repository: String, name: String, _ query: [String: String], mounts: Bool
    ) -> [ScriptedServer.Action] {
        func location() -> [String: String] {
            ["Location": "/v2/\(repository)/blobs/uploads/\(name)?state=\(state.uploads[name]?.count ?? 0)"]
        }
        switch request.method {
        case "POST":
            if mounts, let digest = query["mount"], let source = query["from"], let blob = state.blobs["\(source)@\(digest)"] {
                state.blobs["\(repository)@\(digest)"] = blob
                return [.reply(201, ["Location": "/v2/\(repository)/blobs/\(digest)"])]
            }
            state.uploadCount += 1
            state.uploads["u\(state.uploadCount)"] = []
            return [.reply(202, ["Location": "/v2/\(repository)/blobs/uploads/u\(state.uploadCount)?state=0"])]
        case "PATCH", "PUT":
            guard let known = state.uploads[name], query["state"] == "\(known.count)" else { return [.reply(404)] }
            state.uploads[name] = known + request.body
            state.received += request.body.count
            if request.isBroken { return [.reset] }
            if request.method == "PATCH" { return [.reply(202, location())] }
            let blob = known + request.body
            guard query["digest"] == ContentDigest.of(blob).description else { return [.reply(400)] }
            state.blobs["\(repository)@\(ContentDigest.of(blob))"] = blob
            state.uploads[name] = nil
            return [.reply(201)]
        case "GET":
            guard let known = state.uploads[name] else { return [.reply(404)] }
            return [.reply(204, location().merging(["Range": "0-\(max(0, known.count - 1))"]) { $1 })]
        case "DELETE":
            state.uploads[name] = nil
            return [.reply(204)]
        default: return [.reply(405)]
        }
    }
}
