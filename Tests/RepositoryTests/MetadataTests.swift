import ComposefsBytes
import ComposefsEROFS
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import Testing

@Suite struct MetadataTests {
    /// The bytes of the format's specification (default of init: sha512, V1).
    static let golden = """
        {
          "version": 1,
          "algorithm": "fsverity-sha512-12",
          "features": {
            "compatible": [],
            "read-only-compatible": [
              "v1_erofs"
            ],
            "incompatible": []
          },
          "erofs_formats": {
            "default": 1
          }
        }

        """

    @Test func writesTheGoldenBytes() throws {
        let metadata = RepositoryMetadata(algorithm: .sha512, formats: ErofsFormats(default: .v1))
        #expect(String(decoding: metadata.serialized(), as: UTF8.self) == Self.golden)
        let scratch = try Scratch()
        _ = try scratch.create(.sha512)
        #expect(try scratch.read("meta.json") == Array(Self.golden.utf8))
    }

    @Test func extraVersionsAndNoFlag() throws {
        let metadata = RepositoryMetadata(algorithm: .sha256, formats: ErofsFormats(default: .v2, extra: [.v1, .v0, .v1]))
        #expect(
            String(decoding: metadata.serialized(), as: UTF8.self) == """
                {
                  "version": 1,
                  "algorithm": "fsverity-sha256-12",
                  "features": {
                    "compatible": [],
                    "read-only-compatible": [],
                    "incompatible": []
                  },
                  "erofs_formats": {
                    "default": 2,
                    "extra": [
                      0,
                      1
                    ]
                  }
                }

                """)
        #expect(metadata.formats.all == [.v2, .v0, .v1])
        #expect(try RepositoryMetadata(parsing: metadata.serialized()) == metadata)
        #expect(ErofsFormats(default: .v1, extra: [.v1, .v2]).all == [.v1, .v2])
    }

    private func parse(_ text: String) throws -> RepositoryMetadata { try RepositoryMetadata(parsing: Array(text.utf8)) }

    @Test func legacyFiles() throws {
        let head = #"{"version":1,"algorithm":"fsverity-sha256-12""#
        #expect(try parse(head + #","features":{}}"#).formats.all == [.v2])
        #expect(try parse(head + "}").formats.all == [.v2])
        #expect(try parse(head + #","features":{"read-only-compatible":["v1_erofs"]}}"#).formats.all == [.v1])
        #expect(try parse(head + #","features":{},"erofs_version":1}"#).formats.all == [.v2])
        // The reference reads an explicit V2 together with the flag as V1.
        #expect(try parse(head + #","features":{"read-only-compatible":["v1_erofs"]},"erofs_formats":{"default":2}}"#).formats.all == [.v1])
        #expect(
            try parse(head + #","features":{"read-only-compatible":["v1_erofs"]},"erofs_formats":{"default":2,"extra":[0]}}"#).formats.all
                == [.v2, .v0])
        #expect(try parse(#"{"version":0,"algorithm":"fsverity-sha512-12"}"#).algorithm == .sha512)
    }

    @Test(
        arguments: [
            ("[]", .notObject), ("1", .notObject), ("{}", .missingMember("version", of: nil)),
            (#"{"version":1}"#, .wrongType(member: "algorithm", wanted: .text)),
            (#"{"algorithm":"fsverity-sha256-12"}"#, .missingMember("version", of: nil)),
            (#"{"version":-1,"algorithm":"fsverity-sha256-12"}"#, .wrongType(member: "version", wanted: .number32)),
            (#"{"version":1.0,"algorithm":"fsverity-sha256-12"}"#, .wrongType(member: "version", wanted: .number32)),
            (#"{"version":"1","algorithm":"fsverity-sha256-12"}"#, .wrongType(member: "version", wanted: .number32)),
            (#"{"version":4294967296,"algorithm":"fsverity-sha256-12"}"#, .wrongType(member: "version", wanted: .number32)),
            (#"{"version":1,"algorithm":"sha256-12"}"#, .unknownAlgorithm("sha256-12")),
            (#"{"version":1,"algorithm":"fsverity-sha256"}"#, .unknownAlgorithm("fsverity-sha256")),
            (#"{"version":1,"algorithm":"fsverity-sha256-13"}"#, .unknownAlgorithm("fsverity-sha256-13")),
            (#"{"version":1,"algorithm":"fsverity-md5-12"}"#, .unknownAlgorithm("fsverity-md5-12")),
            (#"{"version":1,"algorithm":"fsverity-sha256-12","features":[]}"#, .wrongType(member: "features", wanted: .object)),
            (
                #"{"version":1,"algorithm":"fsverity-sha256-12","features":{"incompatible":"x"}}"#,
                .wrongType(member: "features.incompatible", wanted: .array)
            ),
            (
                #"{"version":1,"algorithm":"fsverity-sha256-12","features":{"incompatible":[1]}}"#,
                .wrongType(member: "features.incompatible", wanted: .listOfTexts)
            ),
            (#"{"version":1,"algorithm":"fsverity-sha256-12","erofs_formats":[]}"#, .wrongType(member: "erofs_formats", wanted: .object)),
            (#"{"version":1,"algorithm":"fsverity-sha256-12","erofs_formats":{}}"#, .missingMember("default", of: "erofs_formats")),
            (#"{"version":1,"algorithm":"fsverity-sha256-12","erofs_formats":{"default":3}}"#, .unknownImageVersion),
            (#"{"version":1,"algorithm":"fsverity-sha256-12","erofs_formats":{"default":1,"extra":[9]}}"#, .unknownImageVersion),
            (
                #"{"version":1,"algorithm":"fsverity-sha256-12","erofs_formats":{"default":1,"extra":1}}"#,
                .wrongType(member: "erofs_formats.extra", wanted: .array)
            ),
        ] as [(String, MetadataFault)])
    func refuses(_ text: String, _ expected: MetadataFault) {
        guard case .metadata(expected) = failure({ _ = try parse(text) }) else {
            Issue.record("\(text): \(String(describing: failure { _ = try parse(text) }))")
            return
        }
    }

    @Test(arguments: ["", "{", #"{"version":1,"version":1,"algorithm":"fsverity-sha256-12"}"#])
    func refusesInvalidJSON(_ text: String) {
        let error = failure { _ = try parse(text) }
        guard case .metadata(.invalidJSON) = error else {
            Issue.record("\(text): \(String(describing: error))")
            return
        }
        #expect(error?.description.hasPrefix("meta.json: invalid JSON at byte ") == true)
    }

    @Test func refusesWhatIsTooLarge() throws {
        let bytes = Array(Self.golden.utf8) + [UInt8](repeating: 0x20, count: 1 << 20)
        #expect(failure { _ = try RepositoryMetadata(parsing: bytes) } != nil)
        let scratch = try Scratch()
        _ = try scratch.create()
        try scratch.write("meta.json", bytes)
        guard case .metadata(.tooLarge(let size, limit: 1 << 20)) = failure({ _ = try scratch.open() }) else {
            Issue.record("a file of more than 1 MiB was read")
            return
        }
        #expect(size == UInt64(bytes.count))
    }

    /// No byte of the file can change without fsck (or opening) saying so.
    @Test(arguments: [(ErofsVersion.v1, [ErofsVersion]()), (.v1, [.v2])])
    func everyFlipIsFound(_ version: ErofsVersion, _ extra: [ErofsVersion]) throws {
        let scratch = try Scratch()
        let repository = try scratch.create(.sha512, default: version, extra: extra)
        let bytes = try scratch.read("meta.json")
        #expect(try repository.check().isOK)
        var silent: [Int] = []
        for index in bytes.indices {
            for bit in [0, 1, 2, 4, 6, 7] {
                var damaged = bytes
                damaged[index] ^= 1 << bit
                // 2 and 0 are both versions: the file does not show which of them an extra image is.
                if bytes[index] == UInt8(ascii: "2"), damaged[index] == UInt8(ascii: "0"), index > bytes.count - 20 { continue }
                try scratch.write("meta.json", damaged)
                let problems = try repository.check(metadataOnly: true, threads: 1).problems
                if !problems.contains(where: { $0.path == "meta.json" }) { silent.append(index) }
            }
        }
        #expect(silent.isEmpty, "\(silent)")
        for length in 0..<bytes.count {
            try scratch.write("meta.json", Array(bytes[..<length]))
            #expect(try !repository.check(metadataOnly: true, threads: 1).isOK, "cut to \(length) bytes")
        }
        try scratch.directory().unlink(at: "meta.json")
        let report = try repository.check()
        #expect(report.problems.map(\.description) == ["fsck: metadata-parse-failed: meta.json: the file is missing"])
        #expect(!report.hasMetadata)
    }

    @Test func filesOfOtherWritersAreNoFault() throws {
        let scratch = try Scratch()
        let repository = try scratch.create(.sha256)
        for text in [
            #"{"version":1,"algorithm":"fsverity-sha256-12","features":{}}"#,
            "{\n  \"version\": 1,\n  \"algorithm\": \"fsverity-sha256-12\",\n  \"features\": {\n    \"compatible\": [\n      \"new\"\n    ],\n"
                + "    \"read-only-compatible\": [],\n    \"incompatible\": []\n  },\n  \"erofs_formats\": {\n    \"default\": 2\n  },\n"
                + "  \"comment\": \"of a newer release\"\n}\n",
            "{\n  \"version\": 1,\n  \"algorithm\": \"fsverity-sha256-12\",\n  \"features\": {},\n  \"erofs_version\": 1\n}\n",
        ] {
            try scratch.write("meta.json", Array(text.utf8))
            #expect(try repository.check().problems.map(\.description) == [])
        }
    }

    @Test func features() throws {
        func text(_ readOnly: String, _ incompatible: String, version: Int = 1) -> [UInt8] {
            Array(
                #"{"version":\#(version),"algorithm":"fsverity-sha256-12","features":{"read-only-compatible":[\#(readOnly)],"incompatible":[\#(incompatible)]}}"#
                    .utf8)
        }
        let scratch = try Scratch()
        _ = try scratch.create()
        try scratch.write("meta.json", text(#""v1_erofs""#, #""a\u001b","b""#))
        #expect(
            failure { _ = try scratch.open() }?.description
                == "meta.json: the repository requires unknown incompatible features: a\\x1b, b")
        try scratch.write("meta.json", text("", "", version: 2))
        #expect(
            failure { _ = try scratch.open() }?.description
                == "meta.json: unsupported repository format version 2 (this release supports up to 1)")
        try scratch.write("meta.json", text(#""v1_erofs","compressed""#, ""))
        let repository = try scratch.open()
        let refusal = "the repository is not writable: meta.json lists features this release cannot write: compressed"
        #expect(failure { _ = try repository.store([1]) }?.description == refusal)
        #expect(failure { _ = try repository.makeObjectWriter() }?.description == refusal)
        #expect(failure { try repository.publish(Repository.Publication()) }?.description == refusal)
        #expect(failure { _ = try repository.removeStreamReference("x") }?.description == refusal)
        #expect(failure { _ = try repository.collectGarbage() }?.description == refusal)
        #expect(try repository.collectGarbage(dryRun: true).objectsRemoved == 0)
    }
}

/// A `meta.json` that a person edited.
@Suite struct EditedMetadataTests {
    private static let head = "\"version\": 1, \"algorithm\": \"fsverity-sha256-12\""

    /// Valid by Repo-Format.md, chapter 3, in another form than programs write: no damage, a note, and an upgrade writes what is expected.
    @Test(arguments: [
        // Format 1 without the feature, as the documentation once required.
        (
            "{\(head), \"features\": {\"compatible\": [], \"read-only-compatible\": [], \"incompatible\": []}, \"erofs_formats\": {\"default\": 1}}",
            1, ""
        ),
        // The feature alone, and no features at all.
        ("{\(head), \"features\": {\"read-only-compatible\": [\"v1_erofs\"]}}", 1, ""), ("{\(head)}", 2, ""),
        ("{\(head), \"features\": {\"read-only-compatible\": [\"v1_erofs\"]}, \"erofs_formats\": {\"default\": 2}}", 1, ""),
        // Order and white space.
        (
            "\n\t{ \"erofs_formats\" :{\"default\":2 }\r\n,\"features\":{ },\"algorithm\":\"fsverity-sha256-12\" , \"version\":1 }  \n\n",
            2, ""
        ),
        // Members that this release does not know stay.
        (
            "{\"comment\": \"mine\", \(head), \"erofs_formats\": {\"default\": 1, \"later\": [1]}, \"owner\": {\"x\": null}}", 1,
            "      \"later\": [\n        1\n      ]\n    },\n  \"comment\": \"mine\",\n  \"owner\": {\n    \"x\": null\n  }\n}\n"
        ),
    ])
    func isNoDamage(text: String, format: Int, tail: String) throws {
        let scratch = try Scratch()
        _ = try scratch.create(.sha256)
        try scratch.write("meta.json", Array(text.utf8))
        let repository = try scratch.open()
        #expect(repository.erofsFormats.default.rawValue == UInt32(format))
        let report = try repository.check()
        #expect(report.problems.map(\.description) == [])
        #expect(report.notes.count == 1 && report.notes[0].hasPrefix("meta.json is valid, but not in the form"), "\(report.notes)")
        #expect(try repository.normalizeMetadata())
        let written = try scratch.read("meta.json")
        let plain = RepositoryMetadata(algorithm: .sha256, formats: repository.erofsFormats).serialized()
        if tail.isEmpty {
            #expect(written == plain)
        } else {
            let shown = String(decoding: written, as: UTF8.self)
            #expect(shown.hasPrefix("{\n  \"version\": 1,\n  \"algorithm\": \"fsverity-sha256-12\",\n  \"features\": {\n"))
            #expect(shown.replacing(" ", with: "").hasSuffix(tail.replacing(" ", with: "")), "\(shown)")
            #expect(shown.contains("\"v1_erofs\""))
        }
        #expect(try scratch.open().check().notes == [])
        #expect(try scratch.open().erofsFormats == repository.erofsFormats)
        #expect(try !repository.normalizeMetadata())
    }

    /// Almost a key that is missing, and a format that contradicts the feature: one of the two is damaged, and it is unknown which.
    @Test(arguments: [
        "{\(head), \"featurez\": {}}", "{\(head), \"features\": {\"read-only_compatible\": []}}",
        "{\(head), \"erofs_format\": {\"default\": 1}}",
        "{\(head), \"erofs_formats\": {\"default\": 1, \"extr\": [2]}}",
        "{\(head), \"features\": {\"read-only-compatible\": [\"v1_erofs\"]}, \"erofs_formats\": {\"default\": 0}}",
    ])
    func isDamage(text: String) throws {
        let scratch = try Scratch()
        _ = try scratch.create(.sha256)
        try scratch.write("meta.json", Array(text.utf8))
        let repository = try scratch.open()
        #expect(try repository.check().problems.map(\.kind) == [.metadataDamaged])
        #expect(failure { _ = try repository.normalizeMetadata() } != nil)
        #expect(try scratch.read("meta.json") == Array(text.utf8))
    }
}
