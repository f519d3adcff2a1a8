import ComposefsJSON
import ComposefsTestSupport
import Glibc
import Testing

/// `boot prepare` and what follows it, with images that were pulled.
@Suite(.enabled(if: isRoot, "needs root: owners and attributes are kept")) struct BootDeploymentTests {
    private final class System: Sendable {
        let store: ContractStore
        var boot: String { store.folder.path + "/boot" }
        var state: String { store.folder.path + "/state" }

        init() throws {
            store = try ContractStore()
            mkdir(boot, 0o755)
        }

        func pull(_ name: String, _ members: [TarMember]) throws {
            _ = try store.pull(LayoutBuilder(layers: [tarArchive(BootEntriesTests.base + members)]), as: name)
        }

        /// An image with a kernel below /usr, and with `etc/file`.
        func kernel(_ name: String) throws {
            try pull(
                name,
                BootEntriesTests.directories(["usr/lib", "usr/lib/modules", "usr/lib/modules/6.1"]) + [
                    TarMember(name: "usr/lib/os-release", content: Array("PRETTY_NAME=\"OS \(name)\"\n".utf8)),
                    TarMember(name: "usr/lib/modules/6.1/vmlinuz", content: Array(repeating: 7, count: 5000)),
                    TarMember(name: "usr/lib/modules/6.1/initramfs.img", content: Array("disk of \(name)".utf8)),
                    TarMember(name: "etc/file", content: Array(name.utf8)),
                ])
        }

        @discardableResult
        func prepare(_ name: String, _ options: [String] = []) throws -> JSONValue {
            try store.succeed(["boot", "prepare", name, "--boot", boot, "--json"] + options).json()
        }

        func bootFiles() -> [String] { fileList(boot) }
    }

    private func text(_ path: String) throws -> String { String(decoding: try readFile(path), as: UTF8.self) }

    @Test func fromTheFirstImageToItsRemoval() throws {
        let system = try System()
        for name in ["one", "two"] { try system.kernel(name) }
        let first = try system.prepare("one", ["--cmdline", "rw root=x", "--cmdline", "quiet"])
        let id = try #require(first["imageId"]?.string)
        #expect(try system.store.succeed(["boot", "image", "one"]).lines == [id])
        #expect(first["etc"] == ["start": "image"] && first["isNext"] == true && first["filesWritten"] == 2)
        let entry = try text(system.boot + "/" + #require(first["path"]?.string))
        let argument = try system.store.succeed(["boot", "karg", "one"]).lines[0]
        #expect(entry.hasSuffix("\noptions \(argument) rw root=x quiet\n") && entry.contains("\ntitle OS one\n"), "\(entry)")

        try writeFile(system.state + "/deploy/\(id)/etc/upper/file", Array("local".utf8))
        let prepared = try system.store.run(["boot", "prepare", "two", "--boot", system.boot])
        #expect(prepared.status == 0 && prepared.error == "/etc/file: changed locally and in the new image; it is as it was locally\n")
        let second = try system.store.succeed(["boot", "image", "two"]).lines[0]
        #expect(try prepared.lines.first == "image  " + second && text(system.state + "/deploy/\(second)/etc/upper/file") == "local")
        #expect(prepared.lines.contains("etc    from \(id.prefix(12)): 1 changed + 0 removed locally; 1 changed by the image, too"))
        #expect(prepared.lines.last == "files  1 written + 1 shared; 11 bytes")

        let place = ["--boot", system.boot]
        let list = try system.store.succeed(["boot", "list", "--json"] + place).json()["deployments"]?.array ?? []
        #expect(Set(list.compactMap { $0["imageId"]?.string }) == [id, second] && list.allSatisfy { $0["isBooted"] == false })
        let status = try system.store.succeed(["boot", "status", "--json"] + place).json()
        #expect(status["booted"] == .null && status["next"]?["deployment"]?["imageId"] == .string(second))
        #expect(try system.store.succeed(["boot", "rollback", "--json"] + place).json()["imageId"] == .string(id))
        #expect(
            try system.store.succeed(["boot", "status"] + place).lines.dropFirst().first?.hasPrefix("next      \(id.prefix(12))  one  ")
                == true)
        #expect(try system.store.succeed(["boot", "pin", "two"]).lines == ["Pinned " + second])
        #expect(try system.store.refuse(["boot", "remove", "two"] + place, status: 6).contains("is pinned; `cfsoci boot pin --undo`"))
        #expect(try system.store.succeed(["boot", "list"] + place).lines[0].hasPrefix("ID            IMAGE  KERNEL  ENTRY"))

        // The images stay as long as they are deployed, without a name too.
        try system.store.succeed(["gc"])
        let objects = system.store.files
        try system.store.succeed(["prune", "--all", "--yes", "--quiet"])
        for name in ["one", "two"] { try system.store.succeed(["untag", name, "--force"]) }
        try system.store.succeed(["prune", "--all", "--yes", "--quiet"])
        try system.store.succeed(["gc"])
        #expect(
            system.store.files.filter { $0.hasPrefix("objects/") && $0.count > 10 }
                == objects.filter { $0.hasPrefix("objects/") && $0.count > 10 })
        try system.store.succeed(["fsck"])

        try system.store.succeed(["boot", "pin", "two", "--undo"])
        #expect(try system.store.succeed(["boot", "remove", "two"] + place).lines.first == "Removed the deployment " + second)
        #expect(try system.store.refuse(["boot", "remove", "one"] + place).contains("--force removes it anyway"))
        #expect(
            try system.store.succeed(["boot", "gc", "--dry-run"] + place).lines == ["Would remove 0 files of the boot partition, 0 bytes"])
        try system.store.succeed(["boot", "remove", "one", "--force"] + place)
        #expect(system.bootFiles() == ["composefs", "loader", "loader/entries", "loader/loader.conf"])
        #expect((try system.store.succeed(["gc", "--json"]).json()["objectsRemoved"]?.int64 ?? 0) > 5)
    }

    /// The image for booting does not cover /boot, so that a unified kernel image there can name it.
    @Test func unifiedKernelImage() throws {
        let system = try System()
        func members(_ arguments: String) -> [TarMember] {
            let program = EFIProgram([(".osrel", "ID=x\nVERSION_ID=1\n"), (".cmdline", arguments), (".uname", "6.1"), (".linux", "kernel")])
            return BootEntriesTests.directories(["boot/EFI", "boot/EFI/Linux", "boot/EFI/Linux/a.efi.extra.d"]) + [
                TarMember(name: "boot/EFI/Linux/a.efi", content: program.bytes),
                TarMember(name: "boot/EFI/Linux/a.efi.extra.d/b.addon.efi", content: EFIProgram([(".cmdline", "quiet")]).bytes),
                TarMember(name: "usr/file", content: Array("content".utf8)),
            ]
        }
        try system.pull("u", members("ro"))
        let id = try system.store.succeed(["compute-id", "u", "--bootable"]).lines[0]
        let second = try system.store.succeed(["compute-id", "u", "--bootable", "--erofs-version", "2"]).lines[0]
        let other = String(repeating: "0", count: 128)
        for (arguments, problem) in [
            ("ro", "names no composefs image"), ("composefs.digest=?v1-sha512-12:\(other)", "names the image \(other), and not \(id)"),
            ("composefs.digest=v1-sha512-12:\(id)", "demands fs-verity"), ("composefs=xyz", "kernel argument composefs=xyz"),
        ] {
            try system.pull("u" + problem.filter(\.isLetter), members(arguments))
            #expect(
                try system.store.refuse(["boot", "prepare", "u" + problem.filter(\.isLetter), "--boot", system.boot]).contains(problem),
                "\(arguments)")
        }
        #expect(system.bootFiles() == [] && fileList(system.state + "/deploy") == [])
        try system.pull("right", members("ro composefs.digest=?v1-sha512-12:\(id)"))
        #expect(
            try system.store.refuse(["boot", "prepare", "right", "--boot", system.boot, "--cmdline", "x"]).contains("leave out --cmdline"))
        #expect(try system.store.refuse(["boot", "prepare", "right", "--boot", system.boot, "--tries", "3"]).contains("leave out --tries"))
        let prepared = try system.prepare("right")
        #expect(prepared["imageId"] == .string(id) && prepared["isNext"] == true)
        let path = try #require(prepared["path"]?.string)
        #expect(try readFile(system.boot + "/" + path) == members("ro composefs.digest=?v1-sha512-12:\(id)")[3].content)
        #expect(system.bootFiles().filter { $0.hasSuffix(".efi") } == [path, path + ".extra.d/b.addon.efi"])
        // Another format of the image, which the repository does not make.
        try system.pull("v", members("ro composefs=?\(second)"))
        let next = try system.prepare("v", ["--entry", "chosen"])
        #expect(next["imageId"] == .string(second) && next["path"] == "EFI/Linux/chosen.efi" && next["isNext"] == true)
        #expect(
            try system.store.refuse(["boot", "prepare", "v", "--boot", system.boot, "--entry", "chosen"]).contains("cannot be replaced"))
        let place = ["--boot", system.boot]
        #expect(try system.store.succeed(["boot", "status", "--json"] + place).json()["next"]?["entry"]?["id"] == "chosen.efi")
        try system.store.succeed(["boot", "remove", "chosen"] + place)
        #expect(system.bootFiles().filter { $0.hasSuffix(".efi") } == [path, path + ".extra.d/b.addon.efi"])
    }

    @Test func aPartitionThatIsTooSmall() throws {
        let system = try System()
        try system.kernel("one")
        let files = system.store.files
        let result = try shell(
            #"unshare -m bash -euc 'mount -t tmpfs -o size=64k none "$2"; "$CFSOCI" --repo "$1" boot prepare one --boot "$2" 2>&1 || echo "status $?"; find "$2"' bash "$1" "$2""#,
            [system.store.path, system.boot])
        #expect(result.status == 0)
        #expect(
            result.lines.first?.contains("\(system.boot) is too small: ") == true
                && result.lines.dropFirst() == ["status 7", system.boot],
            "\(result.text)\(result.error)")
        #expect(system.store.files == files && fileList(system.state + "/deploy") == [])
    }

    /// Changes through an overlay of the kernel, and the result under another one: renamed directories, metadata without content, whiteouts and
    /// opaque directories. The command is confined as always.
    @Test func changesAsTheKernelKeepsThem() throws {
        try requireMounting()
        let system = try System()
        let script = #"""
            cd "$2"; top=$2
            mk() {
                mkdir -p t$1/{boot,sysroot,usr/lib/modules/6.1,var,etc/{dir/sub,ren,gone,repl}}
                echo k > t$1/usr/lib/modules/6.1/vmlinuz; echo d$1 > t$1/usr/lib/modules/6.1/initramfs.img
                for f in a b c d dir/one dir/sub/two ren/file gone/f repl/x repl/y; do
                    head -c 100 /dev/zero | tr '\0' $1 > t$1/etc/$f; echo $f >> t$1/etc/$f
                done
                echo same > t$1/etc/same
            }
            mk 1; mk 2; mkdir -p m
            echo new > t2/etc/dir/new; echo new > t2/etc/repl/new
            for i in 1 2; do "$CFSOCI" --repo "$3" --quiet create-image t$i img$i --bootable > id$i; done
            "$CFSOCI" --repo "$3" --quiet boot prepare img1 --boot "$1" > out
            etc=state/deploy/$(cat id1)/etc
            mount -t overlay -o lowerdir=t1/etc,upperdir=$etc/upper,workdir=$etc/work,redirect_dir=on,metacopy=on o m
            trap 'cd /; umount "$top/m" || true' EXIT
            echo local > m/a; chmod 600 m/b; chown 5:6 m/c; rm m/d; mv m/ren m/renamed; rm -r m/gone m/repl; mkdir m/repl; echo mine > m/repl/x
            echo add > m/dir/added; mv m/dir/sub m/moved; ln -s a m/link; mkfifo m/pipe
            umount m
            "$CFSOCI" --repo "$3" --quiet boot prepare img2 --boot "$1" > out
            etc=state/deploy/$(cat id2)/etc
            mount -t overlay -o lowerdir=t2/etc,upperdir=$etc/upper,workdir=$etc/work,redirect_dir=on,metacopy=on o m
            cd m
            find . -mindepth 1 | sort | while read -r f; do
                printf '%s %s' "$f" "$(stat -c '%A %u:%g' "$f")"; [ ! -f "$f" ] || printf ' %s' "$(head -c 3 "$f")"; echo
            done
            """#
        let shown = try mustShell(script, [system.boot, system.store.folder.path, system.store.path])
        #expect(
            shown.split(separator: "\n").map(String.init) == [
                "./a -rw-r--r-- 0:0 loc", "./b -rw------- 0:0 111", "./c -rw-r--r-- 5:6 111", "./dir drwxr-xr-x 0:0",
                "./dir/added -rw-r--r-- 0:0 add", "./dir/new -rw-r--r-- 0:0 new", "./dir/one -rw-r--r-- 0:0 222",
                "./link lrwxrwxrwx 0:0 loc", "./moved drwxr-xr-x 0:0", "./moved/two -rw-r--r-- 0:0 111", "./pipe prw-r--r-- 0:0",
                "./renamed drwxr-xr-x 0:0", "./renamed/file -rw-r--r-- 0:0 111", "./repl drwxr-xr-x 0:0",
                "./repl/new -rw-r--r-- 0:0 new", "./repl/x -rw-r--r-- 0:0 min", "./same -rw-r--r-- 0:0 sam",
            ])
    }

    /// `tools/boot-crash`: what a power cut may leave of each call, as file systems may leave it.
    @Test(.enabled(if: hasProgram("python3"), "needs python3")) func powerCuts() throws {
        let tool = "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/") + "/tools/boot-crash"
        let result = try launch(tool, [], environment: ["CFSOCI=" + Cfsoci.binary])
        #expect(result.status == 0, "\(result.text)\(result.error)")
        let last = try #require(result.lines.last)
        #expect(last.hasSuffix(" 0 failures") && !last.hasPrefix("0 calls"), "\(result.text)")
    }

    @Test func usage() throws {
        let system = try System()
        for arguments in [
            ["boot", "prepare", "x"], ["boot", "prepare", "x", "--boot", ""], ["boot", "prepare", "x", "--boot", "/b", "--tries", "0"],
            ["boot", "prepare", "x", "--boot", "/b", "--subdir", "/"], ["boot", "remove"], ["boot", "pin"],
        ] {
            #expect(try system.store.run(arguments).status == 64, "\(arguments)")
        }
        #expect(try system.store.refuse(["boot", "prepare", "x", "--boot", system.boot], status: 3).contains("no image \"x\""))
        try system.kernel("one")
        #expect(
            try system.store.refuse(["boot", "prepare", "one", "--boot", system.boot + "/missing"]).contains("No such file or directory"))
        #expect(try system.store.succeed(["boot", "list", "--boot", system.boot]).lines == ["No deployments"])
        // A named sysroot holds the repository.
        let root = system.store.folder.path + "/root"
        mkdir(root, 0o755)
        _ = try launch("cp", ["-a", system.store.path, root + "/composefs"])
        try Cfsoci.succeed(["boot", "prepare", "one", "--boot", system.boot, "--sysroot", root, "--trust-owner"])
        #expect(fileList(root + "/state/deploy").isEmpty == false)
        #expect(
            try system.store.refuse(["boot", "list", "--boot", system.boot, "--sysroot", root]).contains("is not the directory that holds"))
    }
}
