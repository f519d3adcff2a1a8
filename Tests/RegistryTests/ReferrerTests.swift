import ComposefsHashing
import ComposefsOCIModel
import ComposefsTestSupport
import Testing

@testable import ComposefsRegistry

/// Listing what refers to a manifest.
@Suite struct ReferrerTests {
    private let subject = ContentDigest.of(Array("subject".utf8))
    private var path: String { "/v2/team/app/referrers/\(subject)" }

    private static func index(_ names: [String]) -> [UInt8] {
        let entries = names.map {
            #"{"mediaType":"a/b","digest":"\#(ContentDigest.of(Array($0.utf8)))","size":1,"artifactType":"type/\#($0)"}"#
        }
        return Array(#"{"schemaVersion":2,"manifests":[\#(entries.joined(separator: ","))]}"#.utf8)
    }

    private func list(_ handler: @escaping ScriptedServer.Handler) throws -> (names: [String], requests: [ScriptedServer.Request]) {
        let server = ScriptedServer(handler)
        defer { server.stop() }
        let names = try makeClient().fetchReferrers(server.repository(), of: subject).map { String(($0.artifactType ?? "").dropFirst(5)) }
        return (names, server.requests)
    }

    @Test func onePage() throws {
        let (names, requests) = try list { _ in [.reply(200, [:], Self.index(["a", "b"]))] }
        #expect(names == ["a", "b"])
        #expect(requests.map(\.path) == [path])
    }

    @Test func severalPages() throws {
        let (names, requests) = try list { [path] request in
            switch request.query {
            case "": [.reply(200, ["Link": #"<\#(path)?last=a&n=1>; rel="next""#], Self.index(["a"]))]
            case "last=a&n=1": [.reply(200, ["Link": "<?last=b>;rel=next"], Self.index(["b"]))]
            default: [.reply(200, ["Link": #"<?x>; rel="prev""#], Self.index(["c"]))]
            }
        }
        #expect(names == ["a", "b", "c"])
        #expect(requests.map(\.query) == ["", "last=a&n=1", "last=b"])
    }

    @Test func tagSchema() throws {
        let tag = "/v2/team/app/manifests/sha256-\(subject.hex)"
        let (names, _) = try list { $0.path == tag ? [.reply(200, [:], Self.index(["t"]))] : [.reply(404)] }
        #expect(names == ["t"])
        let (none, requests) = try list { _ in [.reply(404)] }
        #expect(none == [])
        #expect(requests.map(\.path) == [path, tag])
    }

    /// What registries without the API answer instead of 404, and what stands before them: the list under the tag counts.
    @Test(arguments: [400, 401, 403, 404, 405, 406, 410, 415, 500, 501, 503])
    func statusesWithoutTheAPI(status: Int) throws {
        let tag = "/v2/team/app/manifests/sha256-\(subject.hex)"
        let (names, _) = try list { $0.path == tag ? [.reply(200, [:], Self.index(["t"]))] : [.reply(status)] }
        #expect(names == ["t"])
    }

    @Test(arguments: ["<!DOCTYPE html><html>", "", "404 page not found", "{}", #"{"errors":[]}"#])
    func answersThatAreNoListAtAll(body: String) throws {
        let tag = "/v2/team/app/manifests/sha256-\(subject.hex)"
        let (names, _) = try list {
            $0.path == tag ? [.reply(200, [:], Self.index(["t"]))] : [.reply(200, ["Content-Type": "text/html"], Array(body.utf8))]
        }
        #expect(names == ["t"])
    }

    /// Those that say that there is no API mean that there are no referrers; ambiguous responses are reported.
    @Test(arguments: [
        (400, true), (404, true), (405, true), (406, true), (410, true), (501, true), (401, false), (403, false), (500, false),
    ])
    func neitherAPINorTag(status: Int, isNone: Bool) throws {
        let answer: ScriptedServer.Handler = { $0.path.contains("/referrers/") ? [.reply(status)] : [.reply(404)] }
        if isNone {
            #expect(try list(answer).names == [])
        } else {
            #expect(registryError { _ = try list(answer) }?.status == status)
        }
    }

    /// GitLab takes the tag for the subject's digest. What is no index says that there are no referrers (distribution-spec).
    @Test(arguments: ["manifest", "docker", "text", "empty", "null"])
    func tagsThatAreNoLists(kind: String) throws {
        let body: [UInt8] =
            switch kind {
            case "manifest": TestImage.shared.manifest
            case "docker": Array(#"{"schemaVersion":1,"name":"a","fsLayers":[]}"#.utf8)
            case "text": Array("<html>".utf8)
            case "null": Array(#"{"schemaVersion":2,"manifests":null}"#.utf8)
            default: []
            }
        let (names, _) = try list { $0.path.contains("/referrers/") ? [.reply(404)] : [.reply(200, [:], body)] }
        #expect(names == [])
    }

    /// As Go encodes an empty list.
    @Test func noEntriesAtAll() throws {
        #expect(try list { _ in [.reply(200, [:], Array(#"{"schemaVersion":2,"manifests":null}"#.utf8))] }.names == [])
    }

    @Test(arguments: ["http://127.0.0.1:1/v2/team/app/referrers/x", "/v2/team/other/x", "/v2/team/app/../../x", "//x/"])
    func linksThatLeadElsewhere(link: String) {
        let error = registryError { _ = try list { _ in [.reply(200, ["Link": "<\(link)>; rel=next"], Self.index(["a"]))] } }
        #expect(error?.kind == .badResponse)
    }

    @Test func endlessPages() {
        let error = registryError { _ = try list { _ in [.reply(200, ["Link": "<?again>; rel=next"], Self.index(["a"]))] } }
        #expect(error?.kind == .tooLarge)
    }

    @Test(arguments: [
        "", "[]", "{}", #"{"manifests":{}}"#, #"{"schemaVersion":2,"manifests":[{"mediaType":"a/b","digest":"sha256:x","size":1}]}"#,
        "<html>",
    ])
    func answersThatAreNone(body: String) {
        let error = registryError { _ = try list { _ in [.reply(200, [:], Array(body.utf8))] } }
        #expect(error?.kind == .badResponse)
    }

    @Test func links() {
        #expect(RegistryClient.nextLink([#"</a>; rel="prev", </b>; title="x"; rel="next""#]) == "/b")
        #expect(RegistryClient.nextLink(["</a>; rel=next, </b>; rel=last"]) == "/a")
        #expect(RegistryClient.nextLink(["</a>", "<", ">", "", "</a>; rel=nextish", "</c; rel=next"]) == nil)
    }
}
