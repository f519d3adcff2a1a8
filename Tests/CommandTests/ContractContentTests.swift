import ComposefsHashing
import ComposefsJSON
import Glibc
import Testing

/// Commands that read images and layers.
@Suite struct ContractContentTests {
    // MARK: ls

    @Test func listsNames() throws {
        let (store, _) = try ContractStore.small()
        #expect(try store.succeed(["ls", "t"]).lines == ["etc", "usr"])
        #expect(try store.succeed(["ls", "t", "/"]).lines == ["etc", "usr"])
        #expect(try store.succeed(["ls", "t", "usr"]).lines == ["big", "empty", "hard", "link", "small"])
        #expect(try store.succeed(["ls", "t", "/usr/small"]).lines == ["/usr/small"])
        #expect(
            try store.succeed(["ls", "-R", "t"]).lines
                == ["etc", "etc/config", "usr", "usr/big", "usr/empty", "usr/hard", "usr/link", "usr/small"])
        #expect(try store.refuse(["ls", "t", "/usr/gone"]) == "t: no /usr/gone in the image")
        _ = try store.refuse(["ls", "t", "/usr/small/.."])
    }

    @Test func listsEverythingOfEachFile() throws {
        let (store, _) = try ContractStore.small()
        let time = "2009-02-13T23:31:30Z"
        #expect(
            try store.succeed(["ls", "t", "-l", "-R"]).lines == [
                "drwxr-xr-x 2 0 0          0 \(time) etc", "-rw-r--r-- 1 3 4       5000 \(time) etc/config",
                "drwxr-xr-x 2 0 0          0 \(time) usr", "-rwxr-xr-x 2 0 0      70000 \(time) usr/big",
                "-rw-r--r-- 1 0 0          0 \(time) usr/empty", "-rwxr-xr-x 2 0 0      70000 \(time) usr/hard",
                "lrw-r--r-- 1 0 0          3 \(time) usr/link -> big", "-rw-r--r-- 1 0 0         22 \(time) usr/small",
            ])
    }

    @Test func listsModes() throws {
        let store = try ContractStore()
        var members = [TarMember(name: "usr/", mode: 0o755, type: "5"), TarMember(name: "usr/sub/", mode: 0o1777, type: "5")]
        members.append(TarMember(name: "usr/setuid", mode: 0o4755))
        members.append(TarMember(name: "usr/setgid", mode: 0o2644))
        members.append(TarMember(name: "usr/fifo", mode: 0o600, type: "6"))
        members.append(TarMember(name: "usr/old", mode: 0, uid: 65534, gid: 100_000, mtime: 0))
        _ = try store.pull(LayoutBuilder(layers: [tarArchive(members)]), as: "t")
        #expect(
            try store.succeed(["ls", "t", "usr", "-l"]).lines.map { $0.split(separator: " ").map(String.init) } == [
                ["prw-------", "1", "0", "0", "0", "2009-02-13T23:31:30Z", "fifo"],
                ["----------", "1", "65534", "100000", "0", "1970-01-01T00:00:00Z", "old"],
                ["-rw-r-Sr--", "1", "0", "0", "0", "2009-02-13T23:31:30Z", "setgid"],
                ["-rwsr-xr-x", "1", "0", "0", "0", "2009-02-13T23:31:30Z", "setuid"],
                ["drwxrwxrwt", "2", "0", "0", "0", "2009-02-13T23:31:30Z", "sub"],
            ])
    }

    // MARK: cat

    private static let linked = LayoutBuilder(layers: [
        tarArchive([
            TarMember(name: "usr/", mode: 0o755, type: "5"), TarMember(name: "usr/bin/", mode: 0o755, type: "5"),
            TarMember(name: "usr/bin/tool", content: Array("tool".utf8)), TarMember(name: "bin", type: "2", link: "usr/bin"),
            TarMember(name: "usr/bin/up", type: "2", link: "../bin/../../usr/bin/tool"),
            TarMember(name: "usr/bin/absolute", type: "2", link: "/bin/tool"),
            TarMember(name: "usr/bin/outside", type: "2", link: "../../../../../../usr/bin/tool"),
            TarMember(name: "usr/bin/chain", type: "2", link: "absolute"), TarMember(name: "usr/bin/loop", type: "2", link: "loop"),
            TarMember(name: "usr/bin/nowhere", type: "2", link: "/etc/passwd"), TarMember(name: "usr/bin/fifo", type: "6"),
        ])
    ])

    @Test func catPrintsContent() throws {
        let (store, _) = try ContractStore.small()
        let big = [UInt8]((0..<70_000).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8) })
        #expect(try store.succeed(["cat", "t", "/usr/small"]).text == "hello from test layer\n")
        for name in ["usr/big", "/usr/hard", "usr/link", "//usr/./big", "/usr/../usr/big", "/../../usr/big"] {
            #expect(try store.succeed(["cat", "t", name]).output == big, "\(name)")
        }
        #expect(try store.succeed(["cat", "t", "usr/empty"]).output == [])
        #expect(try store.succeed(["cat", "t", "etc/config"]).output == Array(big.suffix(5000)))
    }

    @Test func catFollowsLinksInsideTheImage() throws {
        let store = try ContractStore()
        _ = try store.pull(Self.linked, as: "t")
        for name in ["bin/tool", "/bin/up", "/bin/absolute", "bin/outside", "usr/bin/chain", "/bin/../bin/tool", "/../bin/tool"] {
            #expect(try store.succeed(["cat", "t", name]).text == "tool", "\(name)")
        }
        // It is not the machine's own /etc/passwd.
        for name in ["bin/nowhere", "bin/loop", "bin/missing", "bin/tool/x", "bin/tool/..", "/etc/passwd"] {
            #expect(try store.refuse(["cat", "t", name]) == "t: no \(name) in the image")
        }
        #expect(try store.refuse(["cat", "t", "/bin"]) == "/bin is a directory")
        #expect(try store.refuse(["cat", "t", "/bin/fifo"]) == "/bin/fifo is no regular file")
        // A link to a directory lists the directory, as with ls(1); with -l only if it ends with a slash.
        let inside = ["absolute", "chain", "fifo", "loop", "nowhere", "outside", "tool", "up"]
        #expect(try store.succeed(["ls", "t", "/bin"]).lines == inside)
        #expect(try store.succeed(["ls", "t", "/bin", "-l"]).lines.first?.hasSuffix(" /bin -> usr/bin") == true)
        #expect(try store.succeed(["ls", "t", "/bin/", "-l"]).lines.count == inside.count)
    }

    @Test func catVerifiesBeforeItPrints() throws {
        let (store, _) = try ContractStore.small()
        let config = try store.succeed(["cat", "t", "etc/config"]).output
        let id = try #require(try store.object(with: config))
        let path = store.path + "/objects/\(id.prefix(2))/\(id.dropFirst(2))"
        unlink(path)
        try writeFile(path, [config[0] ^ 1] + config.dropFirst())
        let message = try store.refuse(["cat", "t", "etc/config"])
        #expect(message.contains(id) && message.contains("damaged"), "\(message)")
        unlink(path)
        #expect(try store.refuse(["cat", "t", "etc/config"]).contains(id))
    }

    // MARK: Names that are no text, or act on a terminal

    private func strange() throws -> ContractStore {
        let store = try ContractStore()
        var archive = tarArchive([
            TarMember(name: "usr/", mode: 0o755, type: "5"), TarMember(name: "usr/AAAA", content: Array("latin".utf8)),
            TarMember(name: "usr/BBBBBBBB", content: Array("escape".utf8)), TarMember(name: "usr/d\u{e9}j\u{e0}"),
        ])
        archive = replacingNames(archive, "AAAA", with: [0xe9, 0xff, 0x41, 0x80])
        archive = replacingNames(archive, "BBBBBBBB", with: Array("a\u{1b}]0;x\u{7}b".utf8))
        _ = try store.pull(LayoutBuilder(layers: [archive]), as: "t")
        return store
    }

    @Test func strangeNames() throws {
        let store = try strange()
        let names: [[UInt8]] = [Array("a\u{1b}]0;x\u{7}b".utf8), Array("d\u{e9}j\u{e0}".utf8), [0xe9, 0xff, 0x41, 0x80]]
        // Files and pipes get them unescaped.
        #expect(try store.succeed(["ls", "t", "usr"]).output == Array(names.joined(separator: [0x0a])) + [0x0a])
        // In dumpfiles they are escaped.
        let dump = try store.succeed(["dump", "t"])
        #expect(dump.output.allSatisfy { $0 == 0x0a || (0x20...0x7e).contains($0) })
        #expect(dump.text.contains(#"/usr/\xe9\xffA\x80 "#))
        #expect(dump.text.contains(#"/usr/a\x1b]0;x\x07b "#))
        // They are also bytes in arguments.
        let quoted = #"exec "$0" cat t "$(printf 'usr/\351\377A\200')" --repo "$1""#
        let result = try launch("sh", ["-c", quoted, Cfsoci.binary, store.path])
        #expect(result.text == "latin" && result.error == "")
        let missing = try launch("sh", ["-c", quoted.replacing("A", with: "B"), Cfsoci.binary, store.path])
        #expect(expectRefusal(missing) == #"t: no usr/\xe9\xffB\x80 in the image"#)
        #expect(try store.succeed(["cat", "t", "usr/a\u{1b}]0;x\u{7}b"]).text == "escape")
    }

    @Test(.enabled(if: hasProgram("script"), "needs script(1)")) func onATerminal() throws {
        let store = try strange()
        let listed = try inTerminal(["ls", "t", "usr", "--repo", store.path])
        #expect(listed.status == 0)
        #expect(
            String(decoding: listed.shown, as: UTF8.self) == "a\\x1b]0;x\\x07b\nd\u{e9}j\u{e0}\n\\xe9\\xffA\\x80\n")
        // It does not accept an archive.
        let diffID = try #require(
            try store.succeed(["inspect", "t"]).json()["layers"]?[0]?["diffId"]?.string)
        let layer = try inTerminal(["layer", diffID, "--repo", store.path])
        #expect(layer.status == 1)
        #expect(String(decoding: layer.shown, as: UTF8.self).hasPrefix("cfsoci: error: an archive is not for a terminal; redirect it"))
        #expect(try inTerminal(["layer", diffID, "--json", "--repo", store.path]).status == 0)
    }

    @Test(arguments: [
        ["cat", "t", "\u{1b}[31m"], ["ls", "t", "\u{1b}[31m\u{9b}"], ["ls", "\u{1b}[31m"], ["inspect", "\u{1b}]0;x\u{7}"],
        ["untag", "\u{1b}[2J"], ["tag", "t", "\u{1b}[2J"], ["rm", "\u{1b}[2J"], ["layer", "\u{1b}[2J"], ["stream", "cat", "\u{1b}[2J"],
        ["image-objects", "\u{1b}[2J"], ["pull", "\u{1b}[2J"], ["pull", "oci:/nowhere/\u{1b}[2J"], ["fsck", "\u{1b}[2J"],
        ["mount", "\u{1b}[2J", "/nowhere"], ["umount", "/nowhere/\u{1b}[2J"], ["create-image", "/nowhere/\u{1b}[2J"],
        ["create-dumpfile", "/nowhere/\u{1b}[2J"], ["compute-id", "--path", "/nowhere/\u{1b}[2J"], ["import-layer", "\u{1b}[2J"],
        ["pull", "--platform", "\u{1b}[2J", "x"], ["referrers", "list", "\u{1b}[2J"], ["ls", "\u{202e}"], ["cat", "t", "\u{202e}"],
    ])
    func errorsShowNoControlCharacters(arguments: [String]) throws {
        let (store, _) = try ContractStore.small()
        // Names of images that do not exist have a status of their own.
        let status: Int32 = ["ls", "inspect", "rm", "fsck", "mount", "referrers", "image-objects"].contains(arguments[0]) ? 3 : 1
        let isPath = arguments.prefix(2) == ["ls", "t"]
        let message = try store.refuse(arguments, status: isPath ? 1 : status)
        #expect(!message.contains("\u{202e}"))
    }

    // MARK: layer, stream cat, import-layer

    @Test func layerIsTheOriginalArchive() throws {
        let (store, image) = try ContractStore.small()
        for (layer, diffID) in zip(image.layers, image.diffIDs) {
            let printed = try store.succeed(["layer", diffID])
            #expect(ContentDigest.of(printed.output).description == diffID)
            #expect(printed.output == layer)
            #expect(try store.succeed(["stream", "cat", "oci-layer-" + diffID]).output == layer)
        }
        #expect(try store.succeed(["stream", "cat", "oci-config-" + image.config]).output == image.configBytes)
        #expect(try store.succeed(["stream", "cat", "oci-manifest-" + image.manifest]).output == image.manifestBytes)
        #expect(try store.succeed(["stream", "cat", "refs/oci/t"]).output == image.manifestBytes)
        _ = try store.refuse(["stream", "cat", "refs/oci/none"])
        _ = try store.refuse(["stream", "cat", "../meta.json"])
        _ = try store.refuse(["stream", "cat", "refs/../../meta.json"])
        #expect(try store.refuse(["layer", "nothing"]).contains("is no digest"))
        let absent = "sha256:" + String(repeating: "0", count: 64)
        #expect(try store.refuse(["layer", absent]) == "no layer \(absent) in the repository")
    }

    @Test func layerAsJSONAndDumpfile() throws {
        let (store, image) = try ContractStore.small()
        let json = try store.succeed(["layer", image.diffIDs[0], "--json"]).json()
        #expect(json.object?.keys == ["diffId", "verity", "size", "entryCount", "splitstream"])
        #expect(json["diffId"] == .string(image.diffIDs[0]))
        #expect(isObjectID(json["verity"]?.string))
        #expect(json["size"] == .integer(Int64(image.layers[0].count)))
        #expect(json["entryCount"] == 7)
        #expect(
            json["splitstream"] == [
                "externalObjects": 2, "externalSize": 70_100, "inlineSize": .integer(Int64(image.layers[0].count - 70_100)),
            ])
        let lines = try store.succeed(["layer", image.diffIDs[0], "--dumpfile"]).lines
        #expect(lines.count == 7)
        #expect(lines[0].hasPrefix("/usr 0 40755 1 0 0 0 1234567890.0 - - -"))
        #expect(lines[1] == #"/usr/small 22 100644 1 0 0 0 1234567890.0 - hello\x20from\x20test\x20layer\n -"#, "\(lines[1])")
        #expect(lines[5] == "/usr/link 3 120644 1 0 0 0 1234567890.0 big - -", "\(lines[5])")
        #expect(try store.run(["layer", image.diffIDs[0], "--json", "--dumpfile"]).status == 64)
    }

    @Test func damagedLayersDoNotPassAsWhole() throws {
        let (store, image) = try ContractStore.small()
        let big = try store.succeed(["cat", "t", "usr/big"]).output
        let id = try #require(try store.object(with: big))
        let path = store.path + "/objects/\(id.prefix(2))/\(id.dropFirst(2))"
        unlink(path)
        try writeFile(path, big.dropLast() + [0])
        let result = try store.run(["layer", image.diffIDs[0]])
        #expect(result.status == 2)
        #expect(result.error.hasPrefix("cfsoci: error: layer \(image.diffIDs[0]): "), "\(result.error)")
    }

    @Test func importLayer() throws {
        let store = try ContractStore()
        let archive = LayoutBuilder.small().layers[0]
        let diffID = ContentDigest.of(archive).description
        let imported = try store.succeed(["import-layer", diffID], input: archive)
        #expect(imported.lines.count == 1 && imported.lines[0].hasPrefix("layer  "))
        let id = String(imported.lines[0].dropFirst("layer  ".count))
        #expect(isObjectID(id))
        #expect(try store.succeed(["layer", diffID]).output == archive)
        #expect(try store.succeed(["layer", diffID, "--json"]).json()["verity"] == .string(id))
        // Compressed, it is the same layer, also the second time.
        let packed = try launch("gzip", ["-c"], input: archive).output
        #expect(
            try store.succeed(["import-layer", diffID, "--json"], input: packed).json()
                == ["diffId": .string(diffID), "verity": .string(id)])
        // Another archive does not match that name.
        let fresh = try ContractStore()
        let other = LayoutBuilder.small().layers[1]
        #expect(try fresh.refuse(["import-layer", diffID], input: other).contains(diffID))
        #expect(try fresh.refuse(["import-layer", diffID], input: Array(archive.prefix(3000))).contains("ends"))
        _ = try fresh.refuse(["import-layer", diffID], input: [])
        _ = try fresh.refuse(["layer", diffID])
        #expect(try fresh.run(["fsck"]).status == 0)
    }

    // MARK: dump, compute-id, image-objects

    @Test func dumpIsTheTree() throws {
        let (store, _) = try ContractStore.small()
        let big = try #require(try store.object(with: try store.succeed(["cat", "t", "usr/big"]).output))
        let config = try #require(try store.object(with: try store.succeed(["cat", "t", "etc/config"]).output))
        let time = "1234567890.0"
        #expect(
            try store.succeed(["dump", "t"]).lines == [
                "/ 0 40755 4 0 0 0 \(time) - - -", "/etc 0 40755 2 0 0 0 \(time) - - -",
                "/etc/config 5000 100644 1 3 4 0 \(time) \(path(config)) - \(config)", "/usr 0 40755 2 0 0 0 \(time) - - -",
                "/usr/big 70000 100755 2 0 0 0 \(time) \(path(big)) - \(big)", "/usr/empty 0 100644 1 0 0 0 \(time) - - -",
                "/usr/hard 0 @120000 - - - - 0.0 /usr/big - -", "/usr/link 3 120644 1 0 0 0 \(time) big - -",
                #"/usr/small 22 100644 1 0 0 0 \#(time) - hello\x20from\x20test\x20layer\n -"#,
            ])
    }

    private func path(_ id: String) -> String { "\(id.prefix(2))/\(id.dropFirst(2))" }

    @Test func xattrModes() throws {
        let store = try ContractStore()
        let archive = tarArchive([
            TarMember(name: "usr/", mode: 0o755, type: "5"), paxMember("SCHILY.xattr.user.note", "kept"), TarMember(name: "usr/file"),
        ])
        _ = try store.pull(LayoutBuilder(layers: [archive]), as: "t")
        let plain = try store.succeed(["dump", "t"]).lines
        #expect(plain[2] == "/usr/file 0 100644 1 0 0 0 1234567890.0 - - -")
        #expect(try store.succeed(["dump", "t", "--xattrs", "allowlist-only"]).lines == plain)
        #expect(try store.succeed(["dump", "t", "--xattrs", "keep-user-xattrs"]).lines[2] == plain[2] + " user.note=kept")
        let id = try store.succeed(["compute-id", "t"]).text
        #expect(try store.succeed(["compute-id", "t", "--xattrs", "keep-user-xattrs"]).text != id)
        #expect(try store.run(["dump", "t", "--xattrs", "all"]).status == 64)
    }

    @Test func identifiers() throws {
        let (store, _) = try ContractStore.small()
        let pulled = try store.succeed(["pull", "oci:" + store.layoutPath("t"), "t", "--json"]).json()["imageId"]?.string
        let id = try store.succeed(["compute-id", "t"])
        #expect(id.text == (pulled ?? "") + "\n")
        #expect(try store.succeed(["compute-id", "t", "--json"]).json() == ["imageId": .string(pulled ?? "")])
        var all: Set<String> = []
        for version in 0...2 { all.insert(try store.succeed(["compute-id", "t", "--erofs-version", "\(version)"]).lines[0]) }
        #expect(all.count == 3 && all.contains(pulled ?? ""))
        for arguments in [["--erofs-version", "3"], ["--erofs-version", "-1"], ["--erofs-version", "x"], ["--hash", "sha256"]] {
            #expect(try store.run(["compute-id", "t"] + arguments).status == 64)
        }
        #expect(try store.run(["compute-id"]).status == 64)
        #expect(try store.run(["compute-id", "t", "--path", "/usr"]).status == 64)
    }

    @Test func imageObjects() throws {
        let (store, _) = try ContractStore.small()
        let id = try store.succeed(["compute-id", "t"]).lines[0]
        let wanted = try ["usr/big", "etc/config"].map { try #require(try store.object(with: try store.succeed(["cat", "t", $0]).output)) }
        #expect(try store.succeed(["image-objects", id]).lines == wanted.sorted())
        #expect(
            try store.succeed(["image-objects", id, "--json"]).json()
                == ["imageId": .string(id), "objects": .array(wanted.sorted().map { .string($0) })])
        _ = try store.refuse(["image-objects", String(repeating: "0", count: 128)], status: 3)
        _ = try store.refuse(["image-objects", "../meta.json"])
    }
}
