import ComposefsJSON
import ComposefsTestSupport
import Glibc
import Testing

/// Last uses, and what `prune` removes because of them.
@Suite struct RetentionTests {
    private func names(_ store: ContractStore) throws -> [String] { try store.succeed(["images", "-q"]).lines }

    private func link(_ store: ContractStore, _ tag: String) -> String {
        store.path + "/streams/refs/oci/" + tag.replacing("%", with: "%25").replacing("/", with: "%2F")
    }

    private func age(_ path: String, _ seconds: Int) {
        let time = timespec(tv_sec: Glibc.time(nil) - seconds, tv_nsec: 5)
        let times = [time, time]
        #expect(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW) == 0)
    }

    private func age(_ store: ContractStore, _ tag: String, _ seconds: Int) { age(link(store, tag), seconds) }

    private func lastUse(_ path: String) -> Int {
        var status = stat()
        return lstat(path, &status) == 0 ? status.st_mtim.tv_sec : -1
    }

    private static let day = 86_400

    /// Three tags of one name and one of another, used 1, 5, 20 and 40 days ago.
    private func store() throws -> ContractStore {
        let store = try ContractStore()
        for (index, tag) in ["app:1", "app:2", "app:3", "registry.example.org:5000/team/tool:1"].enumerated() {
            let file = TarMember(name: "usr/f", content: [UInt8](repeating: UInt8(index), count: 5000))
            let layer = tarArchive([TarMember(name: "usr/", mode: 0o755, type: "5"), file])
            try LayoutBuilder(layers: [layer]).write(to: store.layoutPath("\(index)"))
            try store.succeed(["pull", "oci:" + store.layoutPath("\(index)"), tag])
            age(store, tag, [40, 5, 20, 1][index] * Self.day)
        }
        return store
    }

    private let tool = "registry.example.org:5000/team/tool:1"

    @Test func olderThan() throws {
        let store = try store()
        let before = store.files
        for (age, gone) in [
            ("41d", []), ("6w", []), ("39d", ["app:1"]), ("4w", ["app:1"]), ("480h", ["app:1", "app:3"]), ("7d", ["app:1", "app:3"]),
            ("1w1d", ["app:1", "app:3"]), ("30m", ["app:1", "app:2", "app:3", tool]), ("0s", ["app:1", "app:2", "app:3", tool]),
        ] as [(String, [String])] {
            let dry = try store.succeed(["prune", "--older-than", age, "--dry-run", "--json"]).json()
            #expect(dry["tagsRemoved"] == .array(gone.map { .string($0) }), "\(age)")
        }
        #expect(store.files == before)
        // Without a terminal, the removal must be confirmed, as with --all.
        #expect(
            try store.refuse(["prune", "--older-than", "7d"])
                == "prune would remove 2 tags, and there is no terminal to ask on: confirm with --yes, or see --dry-run")
        #expect(store.files == before)
        let dry = try store.succeed(["prune", "--older-than", "7d", "--all", "--dry-run", "--json"]).json()
        let gone = try store.succeed(["prune", "--older-than", "7d", "--yes", "--json"]).json()
        #expect(gone == dry && gone["streamsRemoved"] == 6)
        #expect(try names(store) == ["app:2", tool])
        // What is left needs no question.
        try store.succeed(["prune", "--older-than", "7d"])
        #expect(try store.succeed(["fsck"]).lines.last == "status: ok")
    }

    @Test func keep() throws {
        let store = try store()
        for (options, gone) in [
            (["--keep", "3"], []), (["--keep", "2"], ["app:1"]), (["--keep", "1"], ["app:1", "app:3"]),
            (["--keep", "0"], ["app:1", "app:2", "app:3", tool]), (["--keep", "1", "--older-than", "30d"], ["app:1"]),
            (["--keep", "2", "--older-than", "1d"], ["app:1"]), (["--keep", "1", "--filter", "name=app:[13]"], ["app:1"]),
            (["--filter", "reference=team/*"], [tool]), (["--filter", "name=app", "--older-than", "6d"], ["app:1", "app:3"]),
            (["--filter", "name=nothing"], []),
        ] as [([String], [String])] {
            let dry = try store.succeed(["prune", "--dry-run", "--json"] + options).json()
            #expect(dry["tagsRemoved"] == .array(gone.map { .string($0) }), "\(options)")
        }
        try store.succeed(["prune", "--keep", "1", "--yes"])
        #expect(try names(store) == ["app:2", tool])
    }

    @Test(arguments: [
        ["--older-than", "7"], ["--older-than", ""], ["--older-than", "d"], ["--older-than", "-1d"], ["--older-than", "1y"],
        ["--older-than", "99999999999999999999d"], ["--older-than", "9223372036854775807w"], ["--keep", "-1"], ["--keep", "x"],
        ["--filter", "size=1"], ["--filter", "label"], ["--filter", "dangling=perhaps"],
    ])
    func usageErrors(_ options: [String]) throws {
        let (store, _) = try ContractStore.small()
        let result = try store.run(["prune", "--yes"] + options)
        #expect(result.status == 64 && result.output.isEmpty, "\(result.error)")
        if options[1] == "size=1" { #expect(result.error.contains("before, since, label, dangling, in-use, arch, os")) }
        #expect(try names(store) == ["t"])
    }

    /// What uses an image, and what only looks at it.
    @Test func uses() throws {
        let (store, image) = try ContractStore.small()
        try store.succeed(["tag", "t", "other"])
        func isUsed(_ command: [String], also other: Bool = false, isPlain: Bool = true) throws -> Bool {
            for tag in ["t", "other"] { age(store, tag, 3 * Self.day) }
            if isPlain { try store.succeed(command) } else { try Cfsoci.succeed(command) }
            let now = Glibc.time(nil)
            let used = ["t", "other"].map { now - lastUse(link(store, $0)) < Self.day }
            #expect(used[1] == other)
            return used[0]
        }
        #expect(try isUsed(["pull", "oci:" + store.layoutPath("t"), "t"]))
        #expect(try isUsed(["export", "t", "oci:" + store.folder.path + "/out"]))
        #expect(try isUsed(["export", image.manifest, "oci:" + store.folder.path + "/out"], also: true))
        let elsewhere = store.folder.path + "/elsewhere"
        try Cfsoci.succeed(["init", elsewhere, "--insecure"])
        #expect(try isUsed(["copy", "t", "--from", store.path, "--repo", elsewhere], isPlain: false))
        for command in [
            ["images"], ["inspect", "t"], ["ls", "t"], ["dump", "t"], ["fsck"], ["fsck", "--deep", "t"], ["df"], ["info"], ["gc"],
            ["prune"],
            ["compute-id", "t"], ["tag", "t", "third"], ["upgrade"],
        ] {
            #expect(!(try isUsed(command)), "\(command)")
        }
        let json = try store.succeed(["images", "--json"]).json()["images"]
        let shown = try mustShell(#"date --utc --date="$1" +%s"#, [json?[1]?["lastUsed"]?.string ?? ""])
        #expect(Int(shown.dropLast()) == lastUse(link(store, "t")))
    }

    @Test(arguments: [[], ["--fuse"]]) func mountsAreUses(_ options: [String]) throws {
        try requireMounting()
        let place = try FuseFixture()
        let tag = "docker.io/library/tool:latest"
        let id = try place.store.succeed(["compute-id", "tool"]).lines[0]
        try place.store.succeed(["tag", "tool", "other"])
        for name in ["tool", id, "tool@" + id] {
            for tag in [tag, "other"] { age(place.store, tag, 3 * Self.day) }
            let target = options.isEmpty ? place.kernel : place.fuse
            try place.store.succeed(["mount", name, target, "--quiet"] + options)
            try place.store.succeed(["umount", target])
            if !options.isEmpty { #expect(place.isQuiet()) }
            let now = Glibc.time(nil)
            #expect(now - lastUse(link(place.store, tag)) < Self.day, "\(name)")
            #expect((now - lastUse(link(place.store, "other")) < Self.day) == (name == id), "\(name)")
        }
    }

    /// Images in use are reported as kept, and were used last when they are no longer.
    @Test func inUseStays() throws {
        try requireMounting()
        let place = try FuseFixture()
        let tag = "docker.io/library/tool:latest"
        _ = try place.store.pull(LayoutBuilder.small(), as: "old")
        try place.mount()
        for name in [tag, "old"] { age(place.store, name, 30 * Self.day) }
        let dry = try place.store.succeed(["prune", "--older-than", "7d", "--dry-run", "--json"]).json()
        #expect(dry["tagsRemoved"] == ["old"] && dry["tagsKept"] == [["name": .string(tag), "use": "mounted"]])
        #expect(Glibc.time(nil) - lastUse(link(place.store, tag)) > 29 * Self.day)
        for filter in ["in-use=false", "in-use=true"] {
            let some = try place.store.succeed(["prune", "--filter", filter, "--dry-run", "--json"]).json()
            #expect(some["tagsRemoved"] == (filter == "in-use=false" ? ["old"] : []))
        }
        #expect(try place.store.succeed(["images", "-q", "--filter", "in-use=true"]).lines == [tag])
        #expect(try place.store.succeed(["prune", "--older-than", "7d", "--yes"]).text.contains("Kept tag \(tag): the image is mounted"))
        #expect(try names(place.store) == [tag])
        #expect(Glibc.time(nil) - lastUse(link(place.store, tag)) < Self.day)
        try place.store.succeed(["umount", place.fuse])
        #expect(place.isQuiet())
        #expect(try place.store.succeed(["prune", "--older-than", "7d", "--json"]).json()["tagsRemoved"] == [])
    }

    /// Images that were made from directories keep their names; a tag without a time is not old.
    @Test func staysWithoutATime() throws {
        let (store, _) = try ContractStore.small()
        let tree = store.folder.path + "/tree"
        mkdir(tree, 0o755)
        try store.succeed(["create-image", tree, "made"])
        age(store.path + "/images/refs/made", 99 * Self.day)
        age(store, "t", Glibc.time(nil))
        let listed = try store.succeed(["images", "--json"]).json()["images"]
        #expect(listed?[1]?["lastUsed"] == .null && listed?[0]?["lastUsed"] != .null)
        #expect(try store.succeed(["prune", "--older-than", "1d", "--json"]).json()["tagsRemoved"] == [])
        #expect(try store.succeed(["prune", "--filter", "name=made", "--json"]).json()["tagsRemoved"] == [])
        #expect(try names(store) == ["made", "t"])
    }

    /// On a read-only file system nothing fails, and no time changes.
    @Test func readOnlyRepository() throws {
        try requireMounting()
        let place = try FuseFixture()
        let tag = "docker.io/library/tool:latest"
        age(place.store, tag, 3 * Self.day)
        let before = lastUse(link(place.store, tag))
        let path = place.store.folder.path + "/read-only"
        mkdir(path, 0o755)
        _ = try mustShell(#"mount --bind "$1" "$2" && mount -o remount,bind,ro "$2""#, [place.store.path, path])
        defer { umount2(path, Int32(MNT_DETACH)) }
        for command in [["images"], ["df"], ["info"], ["export", "tool", "oci:" + place.store.folder.path + "/out"]] {
            #expect(try Cfsoci.run(command + ["--repo", path]).status == 0, "\(command)")
        }
        #expect(try Cfsoci.run(["prune", "--older-than", "1d", "--dry-run", "--repo", path]).lines.first == "Removed tag \(tag)")
        try Cfsoci.succeed(["mount", "tool", place.kernel, "--repo", path])
        #expect(lastUse(link(place.store, tag)) == before)
    }

    /// A copy that keeps times keeps the uses.
    @Test func copiesKeepUses() throws {
        let store = try store()
        let path = store.folder.path + "/copy"
        _ = try mustShell(#"mkdir "$2" && tar -C "$1" -cf - . | tar -C "$2" -xf -"#, [store.path, path])
        #expect(
            try Cfsoci.succeed(["prune", "--older-than", "7d", "--dry-run", "--json", "--repo", path]).json()["tagsRemoved"]
                == ["app:1", "app:3"])
        // Another user's repository is not written to, and a mount or export of it works.
        _ = try mustShell(#"chown -hR 65534 "$1""#, [path])
        let tag = path + "/streams/refs/oci/app:1"
        let before = lastUse(tag)
        try Cfsoci.succeed(["export", "app:1", "oci:" + store.folder.path + "/out", "--repo", path])
        #expect(lastUse(tag) == before)
        try Cfsoci.succeed(["export", "app:1", "oci:" + store.folder.path + "/out", "--repo", path, "--trust-owner"])
        #expect(lastUse(tag) > before)
    }

    /// Names that are not UTF-8.
    @Test func anyBytes() throws {
        let (store, _) = try ContractStore.small()
        let raw = try shell(
            #"name=$'bad\xff:1'; "$CFSOCI" tag t "$name" --repo "$1" >/dev/null; touch -h -d '9 days ago' "$1/streams/refs/oci/$name"; "$CFSOCI" images -q --repo "$1" --filter "name=bad*""#,
            [store.path])
        #expect(raw.output == [0x62, 0x61, 0x64, 0xff, 0x3a, 0x31, 0x0a])
        #expect(try store.succeed(["df"]).lines[1].hasPrefix(#"bad\xff:1, t  "#))
        #expect(try store.succeed(["prune", "--older-than", "8d", "--yes"]).lines.first == #"Removed tag bad\xff:1"#)
        #expect(try names(store) == ["t"])
    }
}

/// `images` with filters and orders.
@Suite struct ImageListTests {
    private func store() throws -> ContractStore {
        let store = try ContractStore()
        for (index, (name, created, architecture, label)) in [
            ("docker.io/library/alpine:3", "2024-03-01T00:00:00Z", "amd64", "one"),
            ("example.org/team/app:1", "2024-01-01T00:00:00+02:00", "arm64", "two"),
            ("example.org/team/app:2", "not a time", "amd64", "two"),
        ].enumerated() {
            let file = TarMember(name: "usr/f\(index)", content: [UInt8](repeating: UInt8(index), count: 30_000 * (index + 1)))
            var layout = ContractLayout(layers: [tarArchive([TarMember(name: "usr/", mode: 0o755, type: "5"), file])])
            layout.config =
                #"{"created":"\#(created)","architecture":"\#(architecture)","os":"linux","config":{"Labels":{"kind":"\#(label)","a=b":""}},"#
                + #""rootfs":{"type":"layers","diff_ids":[DIFFIDS]}}"#
            _ = try layout.write(to: store.layoutPath("\(index)"))
            try store.succeed(["pull", "oci:" + store.layoutPath("\(index)"), name])
        }
        let tree = store.folder.path + "/tree"
        mkdir(tree, 0o755)
        try store.succeed(["create-image", tree, "made"])
        return store
    }

    private let alpine = "docker.io/library/alpine:3"
    private let first = "example.org/team/app:1"
    private let second = "example.org/team/app:2"

    @Test func filters() throws {
        let store = try store()
        func listed(_ filters: [String]) throws -> [String] {
            try store.succeed(["images", "-q"] + filters.flatMap { ["--filter", $0] }).lines
        }
        #expect(try listed([]) == [alpine, first, second, "made"])
        for (filters, names) in [
            (["reference=alpine"], [alpine]), (["reference=alpine:3"], [alpine]), (["name=library/*"], [alpine]),
            (["reference=*app*"], [first, second]),
            (["reference=team/app:[2-9]"], [second]), (["name=example.org/*"], [first, second]),
            (["reference=alpine", "name=made"], [alpine, "made"]),
            (["reference=app"], []), (["before=\(alpine)"], [first]), (["since=\(first)"], [alpine]),
            (["before=2024-01-01T00:00:00Z"], [first]),
            (["since=2023-12-31T22:00:00Z"], [alpine]), (["label=kind"], [alpine, first, second]), (["label=kind=two"], [first, second]),
            (["label=kind=two", "label=kind=one"], []), (["label=none"], []), (["arch=x86_64"], [alpine, second]),
            (["arch=arm64"], [first]),
            (["arch=arm64", "arch=amd64"], [alpine, first, second]), (["os=linux"], [alpine, first, second]), (["os=windows"], []),
            (["dangling=true"], []), (["dangling=false", "arch=arm64"], [first]), (["in-use=false"], [alpine, first, second, "made"]),
            (["in-use=true"], []),
        ] as [([String], [String])] {
            #expect(try listed(filters) == names, "\(filters)")
        }
        // A name that leads to an image without a time, or to nothing.
        for value in [second, "nothing", "2024-01-01"] {
            #expect(try store.refuse(["images", "--filter", "before=" + value]).contains(value), "\(value)")
        }
        let digest = try store.succeed(["inspect", first]).json()["manifestDigest"]?.string ?? ""
        try store.succeed(["untag", first])
        #expect(try listed(["dangling=true"]) == [digest] && listed([]) == [alpine, second, "made"])
        #expect(
            try store.succeed(["images", "--filter", "dangling=true"]).lines[1].hasPrefix(
                "<none>  \(digest.dropFirst(7).prefix(12))  arm64  "))
    }

    @Test func orders() throws {
        let store = try store()
        for (index, name) in ["docker.io%2Flibrary%2Falpine:3", "example.org%2Fteam%2Fapp:1", "example.org%2Fteam%2Fapp:2"].enumerated() {
            let time = timespec(tv_sec: 1_700_000_000 + [2, 3, 1][index], tv_nsec: 0)
            #expect(utimensat(AT_FDCWD, store.path + "/streams/refs/oci/" + name, [time, time], AT_SYMLINK_NOFOLLOW) == 0)
        }
        for (order, names) in [
            ("name", [alpine, first, second, "made"]), ("repository", [alpine, first, second, "made"]),
            ("tag", ["made", first, second, alpine]),
            ("created", [alpine, first, second, "made"]), ("last-used", ["made", first, alpine, second]),
            ("size", [second, first, alpine, "made"]),
            ("pulled", ["made", second, first, alpine]), ("disk-size", [second, first, alpine, "made"]),
        ] {
            #expect(try store.succeed(["images", "-q", "--sort", order]).lines == names, "\(order)")
        }
        let ids =
            try store.succeed(["images", "--json", "--sort", "id"]).json()["images"]?.array?.compactMap { $0["imageId"]?.string } ?? []
        #expect(ids.count == 4 && ids == ids.sorted())
        let wrong = try store.run(["images", "--sort", "height"])
        #expect(wrong.status == 64 && wrong.error.contains("name, repository, tag, id, created, pulled, last-used, size, disk-size"))
        let unknown = try store.run(["images", "--filter", "height=1"])
        #expect(unknown.status == 64 && unknown.error.contains("reference, name, before, since, label, dangling, in-use, arch, os"))
    }

    /// `-q` before the command's name only silences messages, as everywhere.
    @Test func quiet() throws {
        let (store, _) = try ContractStore.small()
        let table = try store.succeed(["images"]).text
        #expect(try Cfsoci.succeed(["-q", "images", "--repo", store.path]).text == table)
        for command in [
            ["images", "-q"], ["images", "--quiet"], ["list", "-q"], ["--progress", "none", "images", "--sort", "name", "-q"],
        ] {
            #expect(try store.run(command).text == "t\n", "\(command)")
        }
        #expect(try store.succeed(["images", "-q", "--json"]).json()["images"]?[0]?["name"] == "t")
        #expect(try ContractStore().succeed(["images", "-q"]).text == "")
    }
}
