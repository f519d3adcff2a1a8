import ComposefsJSON
import ComposefsTestSupport
import Glibc
import Testing

/// FUSE mounts of other programs, whose source names no image: each keeps what it may need in the repository that it shows, and nothing in others.
@Suite struct UnidentifiedMountTests {
    /// Runs `body` while a program serves a mount that has this source, with these files open.
    private func serving(_ place: FuseFixture, _ source: String, _ files: [String], _ body: () throws -> Void) throws {
        let ready = place.store.folder.path + "/ready"
        let result = try shell(
            #"nohup python3 "$1" "${@:3}" < <(exec sleep 60) >"$2" 2>&1 & echo $!; for i in $(seq 400); do grep -q . "$2" && break; sleep 0.025; done; cat "$2""#,
            [Fixtures.folder + "/foreign-fuse.py", ready, place.fuse, source] + files)
        let server = try #require(result.lines.first.flatMap { pid_t($0) })
        defer {
            kill(server, SIGKILL)
            while umount2(place.fuse, Int32(MNT_DETACH)) == 0 {}
            for _ in 0..<200 where kill(server, 0) == 0 { usleep(10_000) }
        }
        #expect(result.lines.last == "ready", "\(result.text)")
        try body()
    }

    /// A repository whose image has no name, and the image's ID and file.
    private func nameless() throws -> (place: FuseFixture, id: String, file: String) {
        let place = try FuseFixture()
        let id = try place.store.succeed(["compute-id", "tool"]).lines[0]
        try place.store.succeed(["untag", "docker.io/library/tool:latest"])
        return (place, id, place.store.path + "/objects/\(id.prefix(2))/\(id.dropFirst(2))")
    }

    private func expectKept(
        _ place: FuseFixture, _ id: String, source: String, isOwn: Bool, sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let report = try place.store.succeed(["gc", "--json"]).json()
        #expect(report["objectsRemoved"] == 0 && report["imagesInUse"] == nil, "\(report)", sourceLocation: sourceLocation)
        #expect(report["imagesKeptForMounts"] == [.string(id)], sourceLocation: sourceLocation)
        let mount = report["unidentifiedMounts"]?[0]
        #expect(
            mount?["place"] == .string(place.fuse) && mount?["source"] == .string(source) && mount?["isOwn"] == .bool(isOwn),
            sourceLocation: sourceLocation)
        let line = try place.store.succeed(["prune"]).lines[0]
        #expect(
            line.hasPrefix("Kept image \(id), which no name leads to: it may be the one mounted at \(place.fuse) ")
                && line.contains(" from \(source), which names no image ID"), "\(line)", sourceLocation: sourceLocation)
    }

    /// A server that has nothing of this repository open shows another one, whatever the name of its mount.
    @Test(arguments: ["composefs:docker.io/library/tool:latest", "composefs:test", "composefs"])
    func ofAnotherRepository(_ source: String) throws {
        try requireMounting()
        let (place, _, _) = try nameless()
        let other = try ContractStore()
        try serving(place, source, [other.path]) {
            let report = try place.store.succeed(["gc", "--json"]).json()
            #expect((report["objectsRemoved"]?.int64 ?? 0) > 5 && report["imagesKeptForMounts"] == nil, "\(report)")
        }
    }

    /// The source is the image's ID, and another repository has the same image.
    @Test(arguments: [true, false])
    func sameImageElsewhere(_ isTold: Bool) throws {
        try requireMounting()
        let (place, id, _) = try nameless()
        let other = try ContractStore()
        _ = try other.pull(FuseFixture.image, as: "tool")
        try serving(place, "composefs:" + id, isTold ? [other.path + "/objects"] : []) {
            let report = try place.store.succeed(["gc", "--json", "--dry-run"]).json()
            // A server that has no repository open may open this one later.
            let isListed = report["imagesInUse"]?[0]?["uses"]?.array?.contains { $0["place"] == .string(place.fuse) } ?? false
            #expect(isListed == !isTold, "\(report)")
            #expect(try other.succeed(["images", "--json"]).json()["images"]?[0]?["inUse"]?.array?.isEmpty == false)
        }
    }

    @Test(arguments: ["", "/objects"], ["composefs:test", "composefs"])
    func ofThisRepository(_ directory: String, _ source: String) throws {
        try requireMounting()
        let (place, id, _) = try nameless()
        try serving(place, source, [place.store.path + directory]) { try expectKept(place, id, source: source, isOwn: true) }
        #expect((try place.store.succeed(["gc", "--json"]).json()["objectsRemoved"]?.int64 ?? 0) > 5)
    }

    /// The image that the server has open or mapped is the one, and no other image stays.
    @Test(arguments: ["", "map:"])
    func withItsImage(_ way: String) throws {
        try requireMounting()
        let (place, id, file) = try nameless()
        _ = try place.store.pull(LayoutBuilder.small(), as: "small")
        let other = try place.store.succeed(["compute-id", "small"]).lines[0]
        try place.store.succeed(["untag", "small"])
        try serving(place, "composefs:name", [way + file]) {
            let report = try place.store.succeed(["gc", "--json"]).json()
            #expect(
                report["imagesInUse"]?.array?.map { $0["imageId"] } == [.string(id)] && report["imagesKeptForMounts"] == nil, "\(report)")
            #expect(place.store.files.contains("images/" + id) && !place.store.files.contains("images/" + other))
            #expect(try place.store.object(with: FuseFixture.big) != nil)
        }
        try place.store.succeed(["gc"])
        #expect(try place.store.object(with: FuseFixture.big) == nil)
    }

    /// The image is a file somewhere else: its files are objects of this repository.
    @Test func withAnImageElsewhere() throws {
        try requireMounting()
        let (place, id, file) = try nameless()
        let copy = place.store.folder.path + "/copy.cfs"
        try writeFile(copy, try readFile(file))
        try serving(place, "composefs-fuse", [place.store.path + "/objects", "map:" + copy]) {
            try place.store.succeed(["gc"])
            #expect(try place.store.object(with: FuseFixture.big) != nil)
            #expect(!place.store.files.contains("images/" + id))
        }
        try place.store.succeed(["gc"])
        #expect(try place.store.object(with: FuseFixture.big) == nil)
    }

    /// The server is in another PID namespace: a name that the repository has may mean it, another one does not.
    @Test(arguments: [true, false])
    func serverThatCannotBeSeen(_ isName: Bool) throws {
        try requireMounting()
        let (place, id, _) = try nameless()
        _ = try place.store.pull(LayoutBuilder.small(), as: "small")
        let source = isName ? "composefs:small" : "composefs:large"
        try serving(place, source, []) {
            let result = try mustShell(
                #"unshare --mount --pid --fork --mount-proc "$CFSOCI" gc --json --repo "$1""#, [place.store.path])
            let report = try JSONValue.parse(Array(result.utf8))
            #expect((report["objectsRemoved"] == 0) == isName, "\(report)")
            #expect(report["imagesKeptForMounts"] == (isName ? .some([.string(id)]) : .none))
            if isName { #expect(report["unidentifiedMounts"]?[0]?["isOwn"] == false) }
        }
    }

    /// The name that the mount's source has is not removed without --force, and `prune --all` keeps it.
    @Test func itsName() throws {
        try requireMounting()
        let place = try FuseFixture()
        _ = try place.store.pull(LayoutBuilder.small(), as: "small")
        try serving(place, "composefs:small", [place.store.path]) {
            for command in ["untag", "rm"] {
                let refusal = try place.store.refuse([command, "small"], status: 6)
                #expect(
                    refusal.hasPrefix("\"small\" is the last name of an image that is in use: mounted at \(place.fuse) ("), "\(refusal)")
            }
            let report = try place.store.succeed(["prune", "--all", "--yes", "--json"]).json()
            #expect(report["tagsKept"]?[0]?["name"] == "small" && report["tagsRemoved"] == ["docker.io/library/tool:latest"])
            #expect(report["objectsRemoved"] == 0 && report["imagesKeptForMounts"]?.array?.count == 1)
        }
    }

    /// Without /proc nothing is taken for unused.
    @Test func whatCannotBeReadIsNotUnused() throws {
        try requireMounting()
        let (store, _) = try ContractStore.small()
        func withoutProc(_ words: String) throws -> CommandResult {
            try shell(#"unshare --mount sh -c 'umount --lazy /proc && exec "$CFSOCI" --repo "$0" \#(words)' "$1""#, [store.path])
        }
        // A name is removed with a warning, since nothing is lost by that: collections remove nothing.
        for command in ["untag t", "rm t"] {
            try store.succeed(["tag", "t", "u"])
            let result = try withoutProc(command)
            #expect(result.status == 0, "\(result.error)")
            #expect(
                result.error.hasPrefix("cfsoci: warning: cannot tell which images are in use: ") && result.error.contains("/proc"),
                "\(result.error)")
            let collection = try withoutProc("gc")
            #expect(collection.status == 1 && collection.error.contains("/proc"), "\(collection.error)")
            try store.succeed(["tag", "u", "t"])
            try store.succeed(["untag", "u"])
        }
        let list = try withoutProc("images")
        #expect(list.status == 0 && list.error.hasPrefix("cfsoci: warning: cannot tell which images are in use: "), "\(list.error)")
        #expect(try store.succeed(["images", "--json"]).json()["images"]?.array?.count == 1)
        #expect(try withoutProc("rm --force t").status == 0)
        // A lease that a process holds, and that cannot be read, may be the image's.
        let (second, _) = try ContractStore.small()
        mkdir(second.path + "/.leases", 0o755)
        try writeFile(second.path + "/.leases/x", [1])
        let lease = open(second.path + "/.leases/x", O_RDWR)
        defer { close(lease) }
        #expect(flock(lease, LOCK_EX) == 0)
        #expect(
            try second.refuse(["untag", "t"]).hasPrefix(
                "cannot tell whether the image \"t\" is in use: .leases/x: the lease is held by process"))
    }
}
