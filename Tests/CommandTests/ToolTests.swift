import ComposefsTestSupport
import Glibc
import Testing

@testable import ComposefsToolCommands

/// `mkcomposefs` and `composefs-info`. Golden values are those of the C tools: their test data (tests/ of composefs 1.0.8), their output format
/// as its source prints it, and digests that composefs-rs pins.
@Suite struct ToolTests {
    private let folder: TemporaryFolder
    private static let special = Fixtures.folder + "/special_v1.dump"
    /// Whiteouts need version 1.
    private static let specialID = "b1c78c25db8638be5b9b483472d32ee9624d8d32ded626a91cd536116e8df97c"

    init() throws {
        folder = try TemporaryFolder()
        for name in ["mkcomposefs", "composefs-info"] { symlink(Cfsoci.binary, folder.path + "/" + name) }
    }

    /// Runs a script of bash in the folder of the test, where the tools are found by their names.
    private func run(_ script: String, _ arguments: [String] = []) throws -> CommandResult {
        try shell("PATH=\"$tools:$PATH\"; cd \"$tools\"; " + script, arguments, environment: ["tools=" + folder.path])
    }

    private func succeed(_ script: String, _ arguments: [String] = []) throws -> String {
        let result = try run(script, arguments)
        guard result.status == 0 else { throw RunFailure(description: "\(script): \(result.status): \(result.error)\(result.text)") }
        #expect(result.error.isEmpty, "\(result.error)")
        return result.text
    }

    private func refuse(_ script: String, _ arguments: [String] = []) throws -> String {
        let result = try run(script, arguments)
        #expect(result.status == 1 && result.output.isEmpty, "\(script): \(result.status): \(result.text)")
        return result.error
    }

    // MARK: mkcomposefs

    @Test func dumpfiles() throws {
        // Files of nine million gigabytes: bigfile.dump and bigfile-xattr.dump of the C tool.
        for (bigfile, sum) in [
            ("9000000000000000 100777 1 0 0 0 0.0 - - -", "475838479da68b086445eca1f12dd30fc4513f3f88c66b40b58fd70f7495ea27"),
            ("9001899274941000 100777 1 0 0 0 0.0 - - - user.foo=", "5bdb37d78dcf03b4ab1adc9a2d5212d3d95213b41628939f5fe3769f93d927cc"),
        ] {
            let dump = "/ 4096 40755 2 0 0 0 0.0 - - -\n/bigfile " + bigfile
            let script = #"printf '%s\n' "$1" | mkcomposefs --from-file - - | sha256sum"#
            #expect(try succeed(script, [dump]).hasPrefix(sum), "\(bigfile)")
        }
        // Options may be shortened and stand anywhere; the digest is that of the file.
        let made = try succeed(#"mkcomposefs "$1" image --from --print-digest; composefs-info measure-file image"#, [Self.special])
        #expect(made == "\(Self.specialID)\n\(Self.specialID)\n")
        for (options, id) in [
            ("", Self.specialID), ("--min-version=1", Self.specialID), ("--min-version 0 --max-version 1", Self.specialID),
            ("--max-version=1", Self.specialID), ("--min-version=1 --max-version=0", Self.specialID),
            ("--max-version=0", "ca8f91c7a310308bb5737cf1ab1d06395f83a2d9266423bfe5fe2b5f2c4e4218"),
        ] {
            #expect(try succeed("mkcomposefs --print-digest-only --from-file \(options) \"$1\"", [Self.special]) == id + "\n", "\(options)")
        }
    }

    /// The digest of an empty root directory, which composefs-rs pins for both versions.
    @Test(.enabled(if: isRoot)) func directories() throws {
        #expect(
            try succeed("mkdir -m 755 d; touch -d @5 d; mkcomposefs --use-epoch --print-digest-only d")
                == "8f589e8f57ecb88823736b0d857ddca1e1068a23e264fad164b28f7038eb3682\n")
        #expect(
            try succeed("mkcomposefs --use-epoch --min-version=1 --print-digest-only d")
                == "14a26c957c84f6eb774b91205476adc13196c7c33b9dd97d08d43725ecb90b63\n")
        _ = try succeed(
            """
            mkdir d/sub; printf small > d/sub/small; head -c 5000 /dev/zero > d/large; ln d/large d/sub/again; ln -s large d/link
            mkfifo d/fifo; mknod d/null c 1 3; mknod d/sub/disk b 8 1
            setfattr -n user.a -v one d/large; setfattr -n trusted.b -v two d/large
            chmod 640 d/sub/small; find d -exec touch -h -d @1000.000000005 {} +
            """)
        func line(_ path: String, _ rest: String) -> String { "\(path) \(rest)\n" }
        // 5000 zero bytes.
        let object = try succeed("composefs-info measure-file d/large").split(separator: "\n").joined()
        func file(_ path: String, _ links: Int, _ attributes: String) -> String {
            line(path, "5000 100644 \(links) 0 0 0 1000.5 \(object.prefix(2))/\(object.dropFirst(2)) - \(object)\(attributes)")
        }
        func expected(devices: Bool, both: String) -> String {
            let lines = [
                line("/", "4096 40755 3 0 0 0 1000.5 - - -"), line("/fifo", "0 10644 1 0 0 0 1000.5 - - -"), file("/large", 1, both),
                line("/link", "5 120777 1 0 0 0 1000.5 large - -"), devices ? line("/null", "0 20644 1 0 0 259 1000.5 - - -") : "",
                line("/sub", "\(devices ? 77 : 61) 40755 2 0 0 0 1000.5 - - -"), file("/sub/again", 1, both),
                devices ? line("/sub/disk", "0 60644 1 0 0 2049 1000.5 - - -") : "",
                line("/sub/small", "5 100640 1 0 0 0 1000.5 - small -"),
            ]
            return lines.joined()
        }
        #expect(
            try succeed("mkcomposefs d - | composefs-info dump /dev/stdin") == expected(devices: true, both: " trusted.b=two user.a=one"))
        #expect(
            try succeed("mkcomposefs --skip-devices --user-xattrs --threads=1 d - | composefs-info dump /dev/stdin")
                == expected(devices: false, both: " user.a=one"))
        #expect(
            try succeed("mkcomposefs --skip-xattrs --skip-devices d i; composefs-info dump i") == expected(devices: false, both: ""))
        #expect(
            try succeed("mkcomposefs --hardlinks --skip-xattrs d i; composefs-info dump i | grep /again")
                == line("/sub/again", "5000 @100644 2 0 0 0 1000.5 /large - \(object)"))
        #expect(try succeed("mkcomposefs --use-epoch d i; composefs-info dump i | cut -d' ' -f8 | sort -u") == "0.0\n")
        // A dump makes the same image again.
        #expect(try succeed("composefs-info dump i | mkcomposefs --from-file - j; cmp i j") == "")
    }

    @Test func digestStore() throws {
        _ = try succeed("mkdir -p d/a; head -c 70000 /dev/urandom > d/a/x; cp d/a/x d/y; printf z > d/z; head -c 65 /dev/zero > d/a/w")
        _ = try succeed("mkcomposefs --digest-store=new/store d image")
        let objects = try succeed("composefs-info objects image").split(separator: "\n")
        #expect(objects.count == 2 && objects == objects.sorted())
        #expect(try succeed("cd new/store; find . -type f -printf '%P %m\\n' | sort") == objects.map { "\($0) 644\n" }.joined())
        for object in objects {
            #expect(try succeed("composefs-info measure-file new/store/\(object) | tr -d '\\n'") == object.replacing("/", with: ""))
        }
        #expect(try succeed("composefs-info missing-objects --basedir=new/store image") == "")
        _ = try succeed("rm new/store/\(objects[0])")
        #expect(try succeed("composefs-info --basedir new/store missing-objects image image") == "\(objects[0])\n")
        #expect(
            try succeed(
                "mkcomposefs --digest-store=new/store --print-digest-only d; composefs-info missing-objects --basedir=new/store image"
            )
            .split(separator: "\n").count == 1)
        // What has the name of an object and is not it is not taken for it.
        _ = try succeed("printf wrong > new/store/\(objects[1])")
        #expect(
            try refuse("mkcomposefs --digest-store=new/store d image").contains(
                "new/store/\(objects[1]) is not the file that its name says"))
        // The contents of a dumpfile are not at hand.
        _ = try succeed(
            "composefs-info dump image | mkcomposefs --digest-store=other --from-file - again; test ! -e other; cmp image again")
    }

    @Test func outputs() throws {
        _ = try succeed("mkdir d; mkcomposefs d a; mkcomposefs d - > b; cmp a b; mkcomposefs d /proc/self/fd/3 3> c; cmp a c")
        _ = try succeed("mkfifo p; cat p > e & mkcomposefs d p; wait; cmp a e; test -p p")
        // A file is replaced when the new one is complete: a reader keeps the old one, and a failure leaves it.
        _ = try succeed(
            #"mkcomposefs --from-file "$1" f; exec 3< f; mkcomposefs d f; cmp a f; if cmp -s a <(cat <&3); then exit 1; fi"#, [Self.special]
        )
        #expect(try refuse("printf nonsense | mkcomposefs --from-file - f").contains("mkcomposefs: "))
        #expect(try succeed("cmp a f; ls -A | grep mkcomposefs- || true") == "")
        #expect(
            try refuse("mkcomposefs d nowhere/x").hasPrefix("mkcomposefs: ") && refuse("mkcomposefs nowhere x").hasPrefix("mkcomposefs: "))
    }

    @Test(arguments: [
        ("mkcomposefs", "no source path specified"), ("mkcomposefs d", "no destination path specified"),
        ("mkcomposefs d i j", "too many arguments"), ("mkcomposefs --print-digest-only d i", "writes no image"),
        ("mkcomposefs '' i", "the source path is empty"), ("mkcomposefs --nonsense d i", "unknown option --nonsense"),
        ("mkcomposefs -x d i", "unknown option -x"), ("mkcomposefs --use-epoch=1 d i", "takes no value"),
        ("mkcomposefs d i --threads", "needs a value"), ("mkcomposefs --threads=0 d i", "above 0"),
        ("mkcomposefs --threads=x d i", "takes a number, not x"), ("mkcomposefs --min-version=2 d i", "takes 0 or 1, not 2"),
        ("mkcomposefs --max-version=-1 d i", "takes 0 or 1, not -1"), ("mkcomposefs --skip-xattrs --user-xattrs d i", "exclude each other"),
        ("mkcomposefs --skip d i", "may be --skip-devices or --skip-xattrs"), ("composefs-info", "no command specified"),
        ("composefs-info dump", "no image path specified"), ("composefs-info measure-file", "no files specified"),
        ("composefs-info nonsense x", "unknown command nonsense"), ("composefs-info ls --filter=a/b x", "takes a single name"),
        ("composefs-info missing-objects x", "needs --basedir"), ("composefs-info ls nowhere", "nowhere"),
        ("composefs-info ls /dev/null", "/dev/null: "), ("composefs-info measure-file d", "d"),
    ])
    func refusals(line: String, reason: String) throws {
        let error = try refuse("mkdir -p d; " + line)
        #expect(error.hasPrefix(line.split(separator: " ")[0] + ": ") && error.contains(reason), "\(error)")
    }

    @Test func mountPointsAreRefused() throws {
        guard isRoot else { return }
        let error = try refuse("mkdir -p d/m; mount -t tmpfs none d/m; trap 'umount d/m' EXIT; mkcomposefs d i")
        #expect(error.hasPrefix("mkcomposefs: d/m is on another file system than d: "), "\(error)")
    }

    // MARK: composefs-info

    /// The fixture is what the C tool's dump prints: attributes of one inode before those of several, the root with its size in the image.
    @Test func dumps() throws {
        _ = try succeed(#"mkcomposefs --from-file "$1" image"#, [Self.special])
        let fixture = String(decoding: try readFile(Self.special), as: UTF8.self)
        #expect(try succeed("composefs-info dump image") == fixture)
        #expect(try succeed("composefs-info dump image image") == fixture + fixture)
        // tests/test-dump-filtered.sh of the C tool.
        let filtered = try succeed("composefs-info --filter=chardev --filter=inline --filter=whiteout dump image")
        #expect(
            filtered
                == fixture.split(separator: "\n").filter { line in
                    ["/ ", "/chardev ", "/inline ", "/whiteout "].contains { line.hasPrefix($0) }
                }.map { $0 + "\n" }.joined())
        let names = ["blockdev", "chardev", "escaped-xattr", "fifo", "inline", "whiteout"]
        #expect(try succeed("composefs-info ls image") == names.map { "/\($0)\n" }.joined())
        #expect(try succeed("composefs-info ls image --filter fifo") == "/fifo\n")
    }

    @Test func listings() throws {
        let object = String(repeating: "5a", count: 32)
        let payload = "5a/" + String(repeating: "5a", count: 31)
        let dump = #"""
            / 0 40755 3 0 0 0 0.0 - - -
            /a\x20b 1234 100644 1 0 0 0 1.0 \#(payload) - \#(object)
            /dir 0 40755 2 0 0 0 1.0 - - - user.a\x3d=v\x3d
            /dir/= 0 100644 2 0 0 0 2.5 - - -
            /dir/link 6 120777 1 0 0 0 1.0 a\x20\\\tb\xff - -
            /dir/same 1234 100644 1 0 0 0 1.0 \#(payload) - \#(object)
            /e 1 100644 1 0 0 0 1.0 - \x2d -
            /n\n 0 @120000 - - - - 0.0 /dir/= - -
            """# + "\n"
        try writeFile(folder.path + "/dump", Array(dump.utf8))
        _ = try succeed("mkcomposefs --from-file dump image")
        #expect(
            try succeed("composefs-info ls image")
                == "/a b\t@ \(payload)\n/dir/\t\n/dir/=\n/dir/link\t-> a\\x20\\\\\\tb\\xff\n/dir/same\t@ \(payload)\n/e\n/n\\n\n")
        #expect(try succeed("composefs-info objects image") == payload + "\n")
        // A further name of a file repeats what the file is, and directories have their size: 13 + 14 + 13 + 16 + 16.
        let printed = try succeed("composefs-info dump image")
        #expect(
            printed
                == dump
                .replacing("/ 0 40755", with: "/ 4096 40755").replacing("/dir 0 40755", with: "/dir 72 40755")
                .replacing("/n\\n 0 @120000 - - - - 0.0 /dir/= - -", with: "/n\\n 0 @100644 2 0 0 0 2.5 /dir/= - -"), "\(printed)")
    }

    /// tests/test-units.sh of the C tool.
    @Test func measures() throws {
        let wanted = [
            "37061ef2ac4c21bec68489b56138c5780306a4ad7fe6676236ecdf2c9027cd92",
            "91e7d88cb7bc9cf6d8db3b0ecf89af4abf204bef5b3ade5113d5b62ef374e70b",
        ]
        let script = "echo hello world > a; echo foo bar baz > b; composefs-info measure-file a b"
        #expect(try succeed(script) == wanted.map { $0 + "\n" }.joined())
    }

    // MARK: Names

    @Test func names() throws {
        #expect(try succeed("mkcomposefs --help").hasPrefix("Usage: mkcomposefs [OPTIONS] SOURCE IMAGE\n"))
        #expect(try succeed("composefs-info --help").hasPrefix("usage: composefs-info "))
        #expect(try succeed("\"$CFSOCI\" mkcomposefs --version").hasPrefix("mkcomposefs (cfsoci) "))
        #expect(try succeed("mkdir d; \"$CFSOCI\" mkcomposefs d i; \"$CFSOCI\" composefs-info ls i") == "")
        // Other names are the command.
        symlink(Cfsoci.binary, folder.path + "/xmkcomposefs")
        #expect(try succeed("xmkcomposefs --version") == Cfsoci.succeed(["--version"]).text)
    }

    /// The C tools themselves, where a package of theirs is installed.
    @Test(.enabled(if: CTools.areInstalled)) func comparison() throws {
        _ = try succeed(
            """
            mkdir -p d/e/f; head -c 5000 /dev/zero > d/zero; printf small > d/e/small; ln d/zero d/e/hard; ln -s x d/link; mkfifo d/e/f/fifo
            """)
        for options in ["", "--use-epoch", "--min-version=1", "--skip-xattrs"] {
            let (ours, theirs) = try (succeed("mkcomposefs \(options) d i"), succeed("\(CTools.folder)/mkcomposefs \(options) d j"))
            #expect(try ours == theirs && succeed("cmp i j") == "", "\(options)")
            for command in ["ls", "dump", "objects"] {
                #expect(try succeed("composefs-info \(command) i") == succeed("\(CTools.folder)/composefs-info \(command) i"), "\(command)")
            }
        }
    }
}

/// The C tools of a Debian package, which have the same names as ours.
private enum CTools {
    static let folder = "/usr/bin"
    static let areInstalled: Bool = {
        guard access(folder + "/mkcomposefs", X_OK) == 0, access(folder + "/composefs-info", X_OK) == 0 else { return false }
        let answer = try? launch(folder + "/mkcomposefs", ["--version"])
        return answer?.text.contains("cfsoci") == false
    }()
}
