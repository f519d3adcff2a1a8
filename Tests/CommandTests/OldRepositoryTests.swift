import ComposefsHashing
import ComposefsJSON
import Glibc
import Testing

/// Repositories of the forms that older programs wrote: `Tests/Fixtures/old-repositories`, made by `make-old-repositories` without this package.
@Suite(.serialized) struct OldRepositoryTests {
    /// A form, and what it lacks.
    struct Form: Sendable, CustomStringConvertible {
        var name: String
        var image = "hello"
        var hasMetadata = true
        /// Whether the EROFS image of format 2 is there.
        var hasImage = true
        var description: String { name }

        /// The identifiers that composefs-rs computes for the image in formats 1 and 2.
        var identifiers: (v1: String, v2: String) {
            image == "base"
                ? (
                    "617bf3168c5bed49693358601751cd3c5467526b70d78ee0cc501bcea7918433",
                    "c2450eb4a411b0fe92fdc1c52fb52233dd40c3de10e320f80052d66c4766e060"
                )
                : (
                    "d06f1f6a73f62ed48e05ce9442ff045cdf2a9f5ba1ec623795de3d6177a253d91076459795d94f55d8c3d71dab458bb3fc0071255a50c0a4896d86ffdc870b9a",
                    "f7684c21050615c02cec250e0c7d4118fb0ff6340af5039e06f2f372a7614fff25dfd38cf7f28ad67d8b86e86371b7deafa9ae4bf543630322aee6196417de92"
                )
        }
        /// A file of the image, and its content's digest.
        var file: (path: String, digest: String) {
            image == "base"
                // ID=test, VERSION_ID=1.0
                ? ("/etc/os-release", ContentDigest.of(Array("ID=test\nVERSION_ID=1.0\n".utf8)).description)
                : ("/hello.txt", ContentDigest.of(Array("hello from test layer\n".utf8)).description)
        }
        var algorithm: String { image == "base" ? "fsverity-sha256-12" : "fsverity-sha512-12" }
    }

    static let forms = [
        Form(name: "v2"), Form(name: "no-metadata", hasMetadata: false), Form(name: "old-heads", hasMetadata: false),
        Form(name: "no-v1-image"), Form(name: "old-heads-no-images", hasImage: false),
        Form(name: "no-metadata-no-images", hasMetadata: false, hasImage: false),
        Form(name: "base-old-heads", image: "base", hasMetadata: false), Form(name: "base-no-v1-image", image: "base"),
    ]

    /// A copy of a fixture in a folder of its own.
    struct Place {
        let folder: TemporaryFolder
        let path: String

        init(_ form: Form) throws {
            folder = try TemporaryFolder()
            path = folder.path + "/repo"
            try mustShell(
                #"cp -a "$1" "$2"; find "$2" -exec touch -h -d 2024-05-06T07:08:09 {} +"#,
                [Fixtures.folder + "/old-repositories/" + form.name, path])
        }

        func run(_ arguments: [String], at path: String? = nil) throws -> CommandResult {
            try Cfsoci.run(arguments + ["--repo", path ?? self.path])
        }

        /// Names, kinds, owners, modes, sizes, times, contents and extended attributes of everything, but no times of tags: they are those of the
        /// last use.
        func snapshot() throws -> String {
            try mustShell(
                #"""
                cd "$1"
                find . ! -path './streams/refs/oci/*' -printf '%p %y %m %U %G %s %n %T@ %C@ %i %l\n' | sort
                find ./streams/refs/oci -printf '%p %y %m %U %G %s %n %i %l\n' | sort
                find . -type f -print0 | sort -z | xargs -0 sha512sum
                find . -print0 | sort -z | xargs -0 getfattr -h -d -m - --
                """#, [path])
        }
    }

    /// The commands that only read, and what they need: the EROFS image, or nothing.
    private func readingCommands(_ form: Form, _ folder: String) -> [(arguments: [String], needsImage: Bool)] {
        [
            (["images"], false), (["images", "--json"], false), (["inspect", form.image], false),
            (["inspect", form.image, "--manifest"], false),
            (["ls", form.image], false), (["ls", "-l", "-R", form.image], false), (["cat", form.image, form.file.path], false),
            (["dump", form.image], false), (["compute-id", form.image], false),
            (["compute-id", form.image, "--erofs-version", "1"], false),
            (["referrers", "list", form.image], false), (["image-objects", form.identifiers.v2], true),
            (["export", form.image, "oci:\(folder)/out"], false),
            (["export", form.image, "oci-archive:\(folder)/out.tar:t", "--compression", "zstd"], false),
            (["gc", "--dry-run"], false), (["prune", "--dry-run"], false),
        ]
    }

    @Test(arguments: forms) func readingWritesNothing(_ form: Form) throws {
        let place = try Place(form)
        let before = try place.snapshot()
        for (arguments, needsImage) in readingCommands(form, place.folder.path) where form.hasImage || !needsImage {
            let result = try place.run(arguments)
            #expect(result.status == 0, "\(arguments): \(result.error)")
        }
        let listed = try place.run(["images", "--json"]).json()["images"]?.array?.first
        #expect(listed?["name"]?.string == form.image)
        #expect(ContentDigest.of(try place.run(["cat", form.image, form.file.path]).output).description == form.file.digest)
        #expect(try place.run(["compute-id", form.image, "--erofs-version", "1"]).text == form.identifiers.v1 + "\n")
        #expect(try place.run(["compute-id", form.image, "--erofs-version", "2"]).text == form.identifiers.v2 + "\n")
        // The exported image is complete: a new repository takes it, and verifies everything.
        let new = place.folder.path + "/new"
        try Cfsoci.succeed(["init", new, "--insecure", "--algorithm", form.algorithm])
        try Cfsoci.succeed(["pull", "oci-archive:\(place.folder.path)/out.tar:t", "t", "--repo", new])
        #expect(
            try Cfsoci.succeed(["images", "--json", "--repo", new]).json()["images"]?.array?.first?["imageId"]?.string
                == form.identifiers.v1)
        // Also as the source of a copy.
        try Cfsoci.succeed(["copy", form.image, "copied", "--from", place.path, "--repo", new])
        #expect(try Cfsoci.run(["fsck", "--deep", "--repo", new]).status == 0)
        #expect(try place.snapshot() == before)
    }

    /// fsck says what the repository is, and reports only what is missing.
    @Test(arguments: forms) func check(_ form: Form) throws {
        let place = try Place(form)
        let before = try place.snapshot()
        for options in [[], ["--deep"]] {
            let result = try place.run(["fsck"] + options)
            // Without any EROFS image, no mount is possible: that is told as a fault, with the next step.
            #expect(result.status == (form.hasImage ? 0 : 2), "\(options): \(result.text)\(result.error)")
            if !form.hasImage { #expect(result.text.contains("image-ref-missing: hello") && result.text.contains("cfsoci upgrade")) }
            #expect(result.lines.first == (form.hasMetadata ? "meta.json: ok" : "meta.json: absent"))
            if form.name.hasSuffix("no-v1-image") {
                #expect(
                    result.text.contains(
                        "note: \(form.image) has no EROFS image of the repository's default format; "
                            + "an upgrade generates it"))
            }
            if !form.hasMetadata {
                #expect(
                    result.text.contains("note: there is no meta.json: the repository has the old format, \(form.algorithm)"),
                    "\(result.text)")
            }
            #expect(try place.snapshot() == before)
        }
    }

    /// Commands that write say what to do, and write nothing.
    @Test func writingNeedsTheUpgrade() throws {
        for form in [Self.forms[1], Self.forms[5]] {
            let place = try Place(form)
            let before = try place.snapshot()
            for arguments in [
                ["tag", form.image, "other"], ["untag", form.image], ["rm", form.image], ["gc"], ["prune"],
                ["pull", "oci:" + Fixtures.folder + "/quickstart-layout", "new"], ["referrers", "add", form.image, form.image],
                ["init", place.path, "--insecure"],
            ] {
                let result = try Cfsoci.run(arguments.first == "init" ? arguments : arguments + ["--repo", place.path])
                let message = expectRefusal(result)
                #expect(message.contains("old-format repository (`cfsoci upgrade` makes it a current one)"), "\(arguments): \(message)")
            }
            #expect(try place.snapshot() == before)
        }
    }

    /// On a read-only bind mount, reading gives the same answers, and so does a mount of the image.
    @Test(.enabled(if: isRoot, "needs root"), arguments: [forms[0], forms[1], forms[2], forms[6]]) func onAReadOnlyMount(_ form: Form)
        throws
    {
        let place = try Place(form)
        let bound = place.folder.path + "/bound"
        try mustShell(#"mkdir "$2"; mount --bind "$1" "$2"; mount -o remount,bind,ro "$2""#, [place.path, bound])
        defer { umount2(bound, Int32(MNT_DETACH)) }
        let before = try place.snapshot()
        for arguments in [["images"], ["ls", "-R", form.image], ["dump", form.image], ["fsck"], ["inspect", form.image]] {
            let (here, there) = (try place.run(arguments), try place.run(arguments, at: bound))
            #expect(here.status == there.status && here.output == there.output, "\(arguments): \(there.error)")
        }
        let refused = try place.run(["upgrade"], at: bound)
        #expect(refused.status == 1 && refused.error.contains("ead-only file system"), "\(refused.error)")
        #expect(try place.snapshot() == before)
        guard form.hasImage, !form.hasMetadata || form.name == "v2", access("/dev/fuse", F_OK) == 0 else { return }
        let target = place.folder.path + "/mounted"
        try mustShell(#"mkdir "$1""#, [target])
        for (options, path) in [([], place.path), ([], bound), (["--fuse"], bound)] {
            let result = try place.run(["mount", form.image, target] + options, at: path)
            #expect(result.status == 0, "\(result.error)")
            defer { while umount2(target, Int32(MNT_DETACH)) == 0 {} }
            #expect(ContentDigest.of(try readFile(target + form.file.path)).description == form.file.digest)
            #expect(try place.run(["umount", target]).status == 0)
        }
        // Also without meta.json: served by FUSE from the repository itself.
        if !form.hasMetadata {
            #expect(try place.run(["mount", form.image, target, "--fuse"]).status == 0)
            #expect(ContentDigest.of(try readFile(target + form.file.path)).description == form.file.digest)
            #expect(try place.run(["umount", target]).status == 0)
        }
        #expect(try place.snapshot() == before)
    }

    // MARK: Upgrade

    @Test(arguments: forms) func upgrade(_ form: Form) throws {
        let place = try Place(form)
        let done = try place.run(["upgrade", "--json"])
        #expect(done.status == 0, "\(done.error)")
        // A repository whose own default is format 2 lacks nothing.
        let isCurrent = form.name == "v2"
        #expect(try done.json()["upgraded"]?.int64 == (isCurrent ? 0 : 1) && done.json()["current"]?.int64 == (isCurrent ? 1 : 0))
        #expect(try identifiers(place) == identifiersAfter(form))
        let image = try place.run(["images", "--json"]).json()["images"]?.array?.first
        #expect(image?["imageId"]?.string == (isCurrent ? form.identifiers.v2 : form.identifiers.v1))
        #expect(try place.run(["fsck", "--deep"]).status == 0)
        // A second one changes nothing, and neither does a collection lose anything.
        let after = try place.snapshot()
        let again = try place.run(["upgrade", "--json"])
        #expect(try again.json()["upgraded"]?.int64 == 0 && again.json()["current"]?.int64 == 1)
        #expect(try place.snapshot() == after)
        #expect(try place.run(["gc"]).status == 0)
        #expect(try identifiers(place) == identifiersAfter(form))
        #expect(try place.run(["fsck", "--deep"]).status == 0)
        #expect(ContentDigest.of(try place.run(["cat", form.image, form.file.path]).output).description == form.file.digest)
    }

    private func identifiers(_ place: Place) throws -> [String] {
        fileList(place.path + "/images").filter { !$0.hasPrefix("refs") }
    }

    private func identifiersAfter(_ form: Form) -> [String] {
        let (v1, v2) = form.identifiers
        if form.name == "v2" { return [v2] }
        return (form.hasImage ? [v1, v2] : [v1]).sorted()
    }

    /// The names and targets of everything but objects.
    private func links(_ place: Place) throws -> String {
        try mustShell(#"cd "$1"; find . -path ./objects -prune -o -printf '%p %y %l\n' | sort; cat meta.json"#, [place.path])
    }

    /// An upgrade that was interrupted at any of its steps is finished by the next one, with the same result.
    @Test func everyPartialState() throws {
        for form in Self.forms where ["old-heads", "base-no-v1-image"].contains(form.name) {
            let whole = try Place(form)
            #expect(try whole.run(["upgrade"]).status == 0)
            let expected = try links(whole)
            // The steps in the order of an upgrade: meta.json, objects, image, config, manifest.
            let steps = ["meta.json", "objects", "images", "streams/oci-config-*", "streams/oci-manifest-*"]
            for count in 1...steps.count {
                let place = try Place(form)
                for step in steps.prefix(count) {
                    try mustShell(#"cd "$1"; cp -a --parents --remove-destination -- $3 "$2""#, [whole.path, place.path, step])
                }
                // Reading works in each of these states.
                #expect(ContentDigest.of(try place.run(["cat", form.image, form.file.path]).output).description == form.file.digest)
                #expect(try place.run(["upgrade"]).status == 0, "\(form) after \(steps[count - 1])")
                #expect(try links(place) == expected, "\(form) after \(steps[count - 1])")
                #expect(try place.run(["fsck", "--deep"]).status == 0, "\(form) after \(steps[count - 1])")
            }
        }
    }

    // MARK: The fixtures

    /// The fixtures are what the script writes, which checks the identifiers of the images against those of composefs-rs.
    @Test(.enabled(if: hasProgram("python3"), "needs python3")) func fixturesAreReproducible() throws {
        let folder = try TemporaryFolder()
        let made = try launch(Fixtures.folder + "/make-old-repositories", [folder.path + "/made"])
        #expect(made.status == 0, "\(made.error)")
        let result = try launch("diff", ["-r", "--no-dereference", folder.path + "/made", Fixtures.folder + "/old-repositories"])
        #expect(result.status == 0, "\(result.text)\(result.error)")
    }
}
