import ComposefsHashing
import ComposefsJSON
import Glibc
import Testing

/// `containers-storage:` finds the storage that the configuration of podman names.
@Suite struct StorageTests {
    private static let id = String(repeating: "ab", count: 32)
    private static let layer = String(repeating: "1", count: 64)

    private func base64(_ bytes: [UInt8]) throws -> String { try launch("base64", ["-w", "0"], input: bytes).text }

    /// A storage with the image `localhost/app:1`, written without the project's own code. Returns the manifest's digest.
    private func write(to root: String) throws -> ContentDigest {
        let archive = tarArchive([
            TarMember(name: "usr/", mode: 0o755, type: "5"), TarMember(name: "usr/small", content: Array("hello\n".utf8)),
        ])
        let layout = root + "-layout"
        let digest = try LayoutBuilder(layers: [archive]).write(to: layout)
        let image = try ContractImage(layout: layout, manifest: digest, layers: [archive])
        let item = root + "/overlay-images/" + Self.id
        for folder in [item, root + "/overlay-layers", root + "/overlay/\(Self.layer)/diff"] {
            guard try launch("mkdir", ["-p", folder]).status == 0 else { throw RunFailure(description: "mkdir \(folder)") }
        }
        try writeFile(
            root + "/overlay-images/images.json",
            Array(#"[{"id":"\#(Self.id)","digest":"\#(digest)","names":["localhost/app:1"],"layer":"\#(Self.layer)"}]"#.utf8))
        try writeFile(item + "/manifest", image.manifestBytes)
        try writeFile(item + "/=" + base64(Array(image.config.utf8)), image.configBytes)
        try writeFile(
            root + "/overlay-layers/layers.json",
            Array(#"[{"id":"\#(Self.layer)","diff-digest":"\#(image.diffIDs[0])","diff-size":\#(archive.count)}]"#.utf8))
        // One segment with the whole archive.
        let split = #"{"type":2,"payload":"\#(try base64(archive))","position":0}"# + "\n"
        let packed = try launch("gzip", ["-c"], input: Array(split.utf8)).output
        try writeFile(root + "/overlay-layers/\(Self.layer).tar-split.gz", packed)
        return digest
    }

    @Test func placesOfTheConfiguration() throws {
        let store = try ContractStore()
        let folder = store.folder.path
        let digest = try write(to: folder + "/elsewhere")
        let text = "[storage]\ndriver = \"overlay\"\nrunroot = \"\(folder)/run\"\ngraphroot = \"\(folder)/elsewhere\"\n"
        try writeFile(folder + "/own.conf", Array(text.utf8))
        for path in ["/home", "/home/.config", "/home/.config/containers"] { mkdir(folder + path, 0o755) }
        let home = ["HOME=\(folder)/home", "XDG_CONFIG_HOME=\(folder)/home/.config", "XDG_DATA_HOME=\(folder)/home/data"]
        let ways: [(name: String, environment: [String])] = [
            ("[overlay@\(folder)/elsewhere+\(folder)/run]localhost/app:1", []),
            ("localhost/app:1", ["CONTAINERS_STORAGE_CONF=\(folder)/own.conf"]),
            ("localhost/app:1@\(Self.id)", ["CONTAINERS_STORAGE_CONF=\(folder)/own.conf"]), ("localhost/app:1", []),
        ]
        for (index, way) in ways.enumerated() {
            if index == ways.count - 1 { try writeFile(folder + "/home/.config/containers/storage.conf", Array(text.utf8)) }
            let result = try store.run(["pull", "containers-storage:" + way.name, "t\(index)"], environment: home + way.environment)
            #expect(result.status == 0, "\(way.name): \(result.error)")
            let found = try store.succeed(["inspect", "t\(index)"]).json()["manifestDigest"]
            #expect(found == .string(digest.description))
            #expect(try store.succeed(["cat", "t\(index)", "usr/small"]).text == "hello\n")
        }
        // Without a configuration, the message says where the storage was looked for and how to name another one.
        unlink(folder + "/home/.config/containers/storage.conf")
        let missing = try store.run(["pull", "containers-storage:localhost/app:9", "u"], environment: home)
        #expect(missing.status == 1 && missing.error.contains("\(folder)/home/"), "\(missing.error)")
        #expect(
            missing.error.contains("containers-storage:[overlay@DIR]NAME") && missing.error.contains("storage.conf"), "\(missing.error)")
        let broken = try store.run(
            ["pull", "containers-storage:x", "u"], environment: home + ["CONTAINERS_STORAGE_CONF=\(folder)/none.conf"])
        #expect(broken.status == 1 && broken.error.contains("none.conf"), "\(broken.error)")
    }
}
