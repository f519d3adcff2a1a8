import ComposefsHashing
import ComposefsJSON
import ComposefsSnapshotFormat
import Testing

@Suite struct DescriptorTests {
    private static func digest(_ digit: Character) -> ContentDigest {
        guard let digest = ContentDigest("sha256:" + String(repeating: digit, count: 64)) else { fatalError("valid") }
        return digest
    }

    private static let document: JSONValue = [
        "schema": 1, "artifact": "snapshot", "scope": "disk", "created_at": "2026-05-01T12:00:00Z", "parent": nil,
        "image": ["ref": "docker.io/library/python:3.12", "manifest_digest": .string("\(digest("a"))")], "source_sandbox": "build-1",
        "state": [
            "kind": "file", "format": "raw", "fstype": "ext4",
            "upper": [
                "file": "upper.ext4", "size_bytes": 4_294_967_296,
                "integrity": ["algorithm": "msb-sparse-sha256-v1", "digest": .string("\(digest("b"))")],
            ],
        ], "labels": ["owner": "alice", "stage": "post-pip-install"], "extensions": [:], "requires": [],
    ]

    private func parse(_ document: JSONValue) throws -> SnapshotDescriptor { try SnapshotDescriptor(parsing: document.compactBytes) }

    /// The identity that microsandbox 0.6.14 gives this descriptor (golden value of its own tests).
    @Test func identityOfThePeer() throws {
        let descriptor = try parse(Self.document)
        #expect(descriptor.identity.hex == "5b9ca7611f40ec61fea70c1b1ac9881ed63a16091922682028222cdaef997572")
        #expect(descriptor.canonicalBytes == Self.document.compactBytes)
        #expect(descriptor.integrity == .sparseSHA256(Self.digest("b")) && descriptor.labels.map(\.key) == ["owner", "stage"])
    }

    /// The identity is from a Python program: json.dumps without white space and escapes, members of labels and extensions sorted by UTF-8.
    @Test func identityOfEveryMember() throws {
        let root = try #require(Blake3Digest(hex: String(repeating: "e", count: 64).utf8))
        let descriptor = try SnapshotDescriptor(
            createdAt: "2026-11-03t05:34:06.070089100+01:30", parent: Self.digest("c"), imageReference: "registry.example/app:1",
            imageManifest: Self.digest("d"), format: .qcow2, filesystem: "xfs", file: "upper.qcow2", size: 9_007_199_254_740_991,
            integrity: .merkle(root),
            labels: [
                .init(key: "\u{e9}", value: "\u{fc}\"\\\u{8}\u{c}\n\r\t\u{1}\u{1f}\u{7f}"), .init(key: "e\u{301}", value: "/"),
                .init(key: "z", value: ""), .init(key: "A", value: "\u{1F4BE}"),
            ],
            extensions: JSONObject([
                (key: "org.example.b/1", value: ["z": [1, ["y": nil, "a": true]], "a": -5]),
                (key: "org.example.a/1", value: JSONValue(UInt64.max)),
            ]), requires: ["org.example.a/1", "org.example.b/1"])
        #expect(descriptor.createdAt == "2026-11-03T04:04:06.0700891Z")
        let moved = try SnapshotDescriptor(parsing: Self.replacing(descriptor.canonicalBytes, "04:04:06", "04:05:06"))
        #expect(moved.identity.hex == "ec83efdd5efbd0069402c8b288d3c808ab1c738fbfe14b96a60121fc1aa746fd")
        #expect(try SnapshotDescriptor(parsing: moved.canonicalBytes) == moved)
    }

    private static func replacing(_ bytes: [UInt8], _ old: String, _ new: String) -> [UInt8] {
        let (old, new) = (Array(old.utf8), Array(new.utf8))
        for start in 0...(bytes.count - old.count) where bytes[start..<(start + old.count)].elementsEqual(old) {
            return bytes[..<start] + new + bytes[(start + old.count)...]
        }
        return []
    }

    @Test func unrecordedIntegrity() throws {
        var document = Self.document
        document["source_sandbox"] = ""
        document["labels"] = [:]
        document["state"]?["upper"]?["integrity"] = JSONValue.null
        #expect(try parse(document).identity.hex == "6ae3c835daf1f63c813d3445ace1c370ee1e2f24b5ef3e925e94dc2171fdc8ed")
    }

    /// Order, white space and time zone do not matter.
    @Test func normalizes() throws {
        func reversed(_ value: JSONValue) -> JSONValue {
            guard case .object(let object) = value else { return value }
            return .object(JSONObject(object.members.reversed().map { (key: $0.key, value: reversed($0.value)) }))
        }
        var document = reversed(Self.document)
        document["created_at"] = "2026-05-01T13:00:00.000000000+01:00"
        let descriptor = try SnapshotDescriptor(parsing: document.prettyBytes)
        #expect(descriptor.canonicalBytes == Self.document.compactBytes)
    }

    // MARK: Refusals

    private func error(_ change: (inout JSONValue) -> Void) -> SnapshotFormatError? {
        var document = Self.document
        change(&document)
        do throws(SnapshotFormatError) {
            _ = try SnapshotDescriptor(parsing: document.compactBytes)
            return nil
        } catch {
            return error
        }
    }

    /// Every member must be there, and no other; null where the schema says so only.
    @Test func members() {
        for path in [
            ["schema"], ["artifact"], ["scope"], ["created_at"], ["parent"], ["image"], ["source_sandbox"], ["state"], ["labels"],
            ["extensions"], ["requires"], ["image", "ref"], ["image", "manifest_digest"], ["state", "kind"], ["state", "format"],
            ["state", "fstype"], ["state", "upper"], ["state", "upper", "file"], ["state", "upper", "size_bytes"],
            ["state", "upper", "integrity"], ["state", "upper", "integrity", "algorithm"], ["state", "upper", "integrity", "digest"],
        ] {
            func set(_ value: JSONValue?, _ document: inout JSONValue, _ rest: ArraySlice<String>) {
                guard let key = rest.first else { return }
                if rest.count == 1 { return document[key] = value }
                var inner = document[key] ?? .null
                set(value, &inner, rest.dropFirst())
                document[key] = inner
            }
            #expect(error { set(nil, &$0, path[...]) } == .missing(path.joined(separator: ".")))
            #expect(error { set(["x"], &$0, path[...]) } != nil, "\(path)")
            let mayBeNull = ["parent", "source_sandbox", "integrity"].contains(path.last)
            #expect((error { set(.null, &$0, path[...]) } == nil) == mayBeNull, "\(path)")
        }
        #expect(error { $0["more"] = 1 } == .unknownMember("more"))
        #expect(error { $0["image"]?["more"] = 1 } == .unknownMember("image.more"))
        #expect(error { $0["state"]?["more"] = 1 } == .unknownMember("state.more"))
        #expect(error { $0["state"]?["upper"]?["more"] = 1 } == .unknownMember("state.upper.more"))
        #expect(error { $0["state"]?["upper"]?["integrity"]?["more"] = 1 } == .unknownMember("state.upper.integrity.more"))
    }

    @Test func otherSchemas() {
        #expect(error { $0["schema"] = 2 } == .schema("2"))
        #expect(error { $0["schema"] = "microsandbox.snapshot/1" } == .schema("\"microsandbox.snapshot/1\""))
        #expect(error { $0["scope"] = "resumable" } == .notDisk("resumable"))
        #expect(error { $0["state"] = ["kind": "checkpoint", "checkpoint_id": "c", "manifest": "x"] } == .notDisk("checkpoint"))
    }

    @Test(arguments: [
        "", "2026-05-01", "2026-05-01T12:00:00", "2026-13-01T12:00:00Z", "2026-06-30T23:59:60Z", "0000-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
    ]) func times(text: String) {
        guard case .value("created_at", _) = error({ $0["created_at"] = .string(text) }) else {
            Issue.record("accepted")
            return
        }
    }

    @Test(arguments: [
        "", ".", "..", "../upper.ext4", "a/b", "/a", "a/", "a\0b", String(repeating: "n", count: 256), "snapshot.json", "manifest.json",
        ".manifest.json.legacy", ".snapshot-migration.lock",
    ]) func fileNames(name: String) {
        guard case .value("state.upper.file", _) = error({ $0["state"]?["upper"]?["file"] = .string(name) }) else {
            Issue.record("accepted")
            return
        }
    }

    @Test func values() {
        func isRefused(_ path: String, _ change: (inout JSONValue) -> Void) -> Bool {
            if case .value(path, _) = error(change) { true } else { false }
        }
        let sha512 = JSONValue.string("sha512:" + String(repeating: "a", count: 128))
        let upperCase = JSONValue.string("sha256:" + String(repeating: "A", count: 64))
        for digest in [sha512, upperCase, "", "sha256:"] {
            #expect(isRefused("parent") { $0["parent"] = digest })
            #expect(isRefused("image.manifest_digest") { $0["image"]?["manifest_digest"] = digest })
            #expect(isRefused("state.upper.integrity.digest") { $0["state"]?["upper"]?["integrity"]?["digest"] = digest })
        }
        #expect(isRefused("image.ref") { $0["image"]?["ref"] = "" })
        #expect(isRefused("state.fstype") { $0["state"]?["fstype"] = "" })
        #expect(isRefused("state.format") { $0["state"]?["format"] = "vmdk" })
        #expect(isRefused("state.upper.size_bytes") { $0["state"]?["upper"]?["size_bytes"] = 9_007_199_254_740_992 })
        #expect(isRefused("state.upper.size_bytes") { $0["state"]?["upper"]?["size_bytes"] = -1 })
        #expect(isRefused("state.upper.size_bytes") { $0["state"]?["upper"]?["size_bytes"] = .double(4.5) })
        #expect(isRefused("extensions") { $0["extensions"] = ["a": [.double(0.5)]] })
        #expect(isRefused("requires") { $0["requires"] = ["a"] })
        #expect(
            isRefused("requires") {
                $0["extensions"] = ["a": 1, "b": 1]
                $0["requires"] = ["b", "a"]
            })
        let merkle: JSONValue = [
            "algorithm": "msb-file-merkle-blake3-v1", "root": .string("blake3:" + String(repeating: "1", count: 64)),
            "logical_size": 4_294_967_296, "leaf_size": 65536,
        ]
        #expect(error { $0["state"]?["upper"]?["integrity"] = merkle } == nil)
        for (key, value) in [("root", "sha256:1"), ("logical_size", 5), ("leaf_size", 4096)] as [(String, JSONValue)] {
            #expect(
                isRefused("state.upper.integrity." + key) {
                    $0["state"]?["upper"]?["integrity"] = merkle
                    $0["state"]?["upper"]?["integrity"]?[key] = value
                })
        }
        #expect(isRefused("state.upper.integrity.algorithm") { $0["state"]?["upper"]?["integrity"]?["algorithm"] = "md5" })
    }

    @Test func documents() throws {
        func error(_ bytes: [UInt8]) -> SnapshotFormatError? {
            do throws(SnapshotFormatError) {
                _ = try SnapshotDescriptor(parsing: bytes)
                return nil
            } catch {
                return error
            }
        }
        guard case .json? = error(Array("{".utf8)) else {
            Issue.record("not JSON")
            return
        }
        // A member that occurs twice, at any depth.
        let twice = Self.replacing(Self.document.compactBytes, #""extensions":{}"#, #""extensions":{"a":{"b":1,"b":1}}"#)
        guard case .json(let fault)? = error(twice), fault.reason == .duplicateKey("b") else {
            Issue.record("duplicate")
            return
        }
        #expect(error([UInt8](repeating: 0x20, count: SnapshotDescriptor.byteLimit + 1)) == .tooLarge(limit: SnapshotDescriptor.byteLimit))
        #expect(error(Array("[]".utf8)) == .type("snapshot.json", expected: "an object", found: .array))
    }
}
