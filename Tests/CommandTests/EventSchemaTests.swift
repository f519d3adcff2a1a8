import ComposefsBytes
import ComposefsCommandSupport
import ComposefsHashing
import ComposefsJSON
import ComposefsOCI
import Testing

@testable import ComposefsCommands
@testable import ComposefsTransfer

/// Compares the events and codes of Scripting.md with what the program writes.
@Suite struct EventSchemaTests {
    private static let article = Fixtures.folder + "/../../Sources/ComposefsOCI/ComposefsOCI.docc/Scripting.md"

    /// The rows of the table after the paragraph that begins so: the code spans of each cell.
    private func table(after start: String) throws -> [[[String]]] {
        let lines = String(decoding: try readFile(Self.article), as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: false)
        let begin = try #require(lines.firstIndex { $0.hasPrefix(start) }, "\(start)")
        let rows = lines[begin...].drop { !$0.hasPrefix("| ") }.prefix { $0.hasPrefix("| ") }.dropFirst(2)
        return rows.map { row in row.split(separator: "|").map(Self.codes) }
    }

    private static func codes(_ cell: Substring) -> [String] {
        cell.split(separator: "`", omittingEmptySubsequences: false).enumerated().filter { $0.offset % 2 == 1 }.map { String($0.element) }
    }

    private static let digest = ContentDigest.of([1])

    private static let pullEvents: [PullEvent] = {
        let found = PullEvent.Resolution(manifest: digest, layers: [])
        let image: [PullEvent.Phase] = [
            .resolving(reference: "x"), .resolved(found), .merging, .writingImage, .publishing, .tagMoved(from: digest, to: digest), .done,
            .stitching(.vmdk), .diskStored(.vmdk),
        ]
        let layer: [PullEvent.Phase] = [
            .materializing(.vmdk, byteCount: 4096), .materialized(.vmdk), .queued, .started, .bytes, .verified, .stored, .skipped(.present),
            .skipped(.repeated(of: 0)), .waiting,
            .retrying(reason: "x", delay: .seconds(1)), .resumed(from: 1),
        ]
        return image.map { PullEvent(.image, $0, bytesDone: 0, bytesTotal: 0) }
            + layer.map { PullEvent(.layer(index: 0, digest: digest), $0, bytesDone: 0, bytesTotal: 0) }
    }()

    private static let pushEvents: [JSONValue] = {
        let image: [PushEvent.Phase] = [.began(layers: [digest]), .manifest, .referrers, .done]
        let layer: [PushEvent.Phase] = [.queued, .started, .bytes, .finished(.present), .finished(.mounted), .finished(.sent)]
        return image.map { PushEvent(component: .image, phase: $0, bytesDone: 0, bytesTotal: 0).json }
            + layer.map { PushEvent(component: .layer(index: 0, digest: digest), phase: $0, bytesDone: 0, bytesTotal: 0).json }
    }()

    private static let copyEvents: [JSONValue] = {
        let events: [CopyEvent] = [
            .began(layers: [digest]), .layer(index: 0, .present), .layer(index: 0, .started), .layer(index: 0, .stored),
            .layer(index: 0, .objects(done: 0, total: 0)), .merging, .publishing, .done,
        ]
        return events.map(\.json)
    }()

    private static let checkEvents: [JSONValue] = {
        let events: [StoreCheckEvent] = [
            .objects(done: 0, total: 0), .images, .again, .repair(.mending(image: "x")), .repair(.did(.regenerated(image: "x"))),
        ]
        return events.map(\.json)
    }()

    private static let commonEvents: [JSONValue] = [
        EventName.schemaLine, ["event": "note", "message": ""], ["event": "error", "code": "", "message": "", "status": 1],
    ]

    /// The keys of all events of a name.
    private func keys(_ events: [JSONValue]) -> [String: Set<String>] {
        var found: [String: Set<String>] = [:]
        for event in events {
            let keys = Set(event.object?.keys ?? []).subtracting(["event"])
            found[event["event"]?.string ?? "", default: []].formUnion(keys)
        }
        return found
    }

    @Test func events() throws {
        let pulled = Self.pullEvents.map(\.json)
        for (start, events) in [
            ("Events of every command", Self.commonEvents), ("Events of `pull`", pulled), ("Events of `push`", Self.pushEvents),
            ("Events of `copy`", Self.copyEvents), ("Events of `fsck`", Self.checkEvents),
        ] {
            let written = keys(events)
            var documented: [String: Set<String>] = [:]
            for row in try table(after: start) {
                let name = try #require(row.first?.first)
                // Keys of nested objects and texts are named after the key that holds them.
                let known = written[name] ?? []
                let named = Set(row.count > 1 ? row[1] : [])
                #expect(known.isSubset(of: named), "\(start): \(name) has the keys \(known), and the article \(named)")
                #expect(named.subtracting(known).isSubset(of: ["digest", "size", "warning: ", "bytesDone", "action"]), "\(name): \(named)")
                documented[name] = named
            }
            #expect(Set(documented.keys) == Set(written.keys), "\(start)")
        }
        // Every name is an event of some command.
        let all = Self.commonEvents + pulled + Self.pushEvents + Self.copyEvents + Self.checkEvents
        #expect(Set(keys(all).keys) == Set(EventName.allCases.map(\.rawValue)))
    }

    @Test func codes() throws {
        var documented: [String: Int32] = [:]
        for row in String(decoding: try readFile(Self.article), as: UTF8.self).split(separator: "\n") {
            let cells = row.split(separator: "|")
            guard row.hasPrefix("| `"), cells.count == 3, let status = Int32(cells[1].trimming()) else { continue }
            for code in Self.codes(cells[0]) { documented[code] = status }
        }
        #expect(documented == Dictionary(uniqueKeysWithValues: ErrorCode.allCases.map { ($0.rawValue, $0.status) }))
        let readme = String(decoding: try readFile(Fixtures.folder + "/../../README.md"), as: UTF8.self)
        for code in ErrorCode.allCases { #expect(readme.contains("`\(code.rawValue)`"), "README.md lacks the code \(code.rawValue)") }
    }
}

extension Substring {
    fileprivate func trimming() -> Substring { drop { $0 == " " }.split(separator: " ").first ?? "" }
}
