import ComposefsTestSupport
import Glibc
import Testing

/// FUSE mounts leave nothing behind, and can be covered by overlays.
@Suite(.serialized, .enabled(if: isRoot && access("/dev/fuse", F_OK) == 0, "needs root and FUSE"))
struct FuseLifeTests {
    /// A thousand servers, four at a time, ended in every way: by `umount` and umount(8), by SIGTERM, lazily while a file is open, and by
    /// SIGKILL, after which `umount` removes the mount.
    @Test(.timeLimit(.minutes(10))) func aThousandCyclesLeaveNothing() throws {
        let fixture = try FuseFixture()
        let before = fileList("/proc/self/fd").count
        let result = try shell(
            #"""
            repository=$1 base=$2
            mkdir "$base/connections"; mount -t fusectl none "$base/connections"; trap 'umount "$base/connections"' EXIT
            connections() { ls "$base/connections" | sort; }
            before=$(connections)
            server() { pgrep -n -f -- "mount --fuse tool $1 --repo $repository"; }
            cycles() {
                local at=$base/at-$1 index
                mkdir "$at"
                for index in $(seq 250); do
                    "$CFSOCI" mount --fuse tool "$at" --repo "$repository"
                    exec 9< "$at/usr/tool"
                    [ -s "$at/usr/small" ]
                    case $((index % 10)) in
                        1) exec 9<&-; kill -9 "$(server "$at")"; "$CFSOCI" umount "$at" ;;
                        3) kill -9 "$(server "$at")"; exec 9<&-; umount "$at" ;;
                        5) exec 9<&-; kill "$(server "$at")"; while mountpoint -q "$at"; do sleep 0.01; done ;;
                        7) "$CFSOCI" umount --lazy "$at"; exec 9<&- ;;
                        8) exec 9<&-; "$CFSOCI" umount "$at" ;;
                        *) exec 9<&-; umount "$at" ;;
                    esac
                    [ ! -e "$at/usr" ]
                done
                echo "$index"
            }
            workers=
            for number in 1 2 3 4; do cycles $number & workers="$workers $!"; done
            for worker in $workers; do wait "$worker"; done
            for _ in $(seq 500); do pgrep -f -- "--repo $repository" > /dev/null || break; sleep 0.02; done
            echo "mounts $(grep -cF "$base/at-" /proc/self/mountinfo)" || true
            echo "processes $(pgrep -c -f -- "--repo $repository")" || true
            echo "loop devices $(cat /sys/block/loop*/loop/backing_file 2>/dev/null | grep -cF "$base")" || true
            echo "connections $(comm -13 <(echo "$before") <(connections) | wc -l)"
            """#, [fixture.store.path, fixture.store.folder.path])
        #expect(result.status == 0 && result.error.isEmpty, "\(result.error)")
        #expect(
            result.lines == ["250", "250", "250", "250", "mounts 0", "processes 0", "loop devices 0", "connections 0"], "\(result.text)")
        #expect(fixture.isQuiet())
        #expect(fileList("/proc/self/fd").count == before)
        #expect(try fixture.store.succeed(["fsck"]).lines.last == "status: ok")
    }

    // MARK: An overlay over it

    private static let change = #"""
        # Arguments: what is mounted, a directory for the rest, more options of the overlay.
        mkdir "$2/upper" "$2/work" "$2/merged"
        on() { mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work$3" "$2/merged"; }
        on "$@"
        cd "$2/merged/usr"
        cmp tool hard; [ "$(stat -c %s small)" = 2 ]
        echo new > new; printf more >> small; printf X | dd of=tool conv=notrunc bs=1 seek=1000 status=none
        rm other; mv link renamed; mkdir dir; mv new dir/; ln small again; chmod 0700 hard; touch -d @5 hard; truncate -s 3 dir/new
        cd /; umount "$2/merged"
        on "$@"
        cd "$2/merged/usr"
        find . -printf '%p %y %m %s %l\n' | sed 's/^\(.* d [0-9]*\) [0-9]*/\1/' | sort
        echo "small $(od -An -tx1 small | tr -d ' ') new $(cat dir/new) again $(stat -c %h again) hard $(stat -c %Y hard)"
        cmp -l tool hard || true
        """#

    private static let changed = [
        ". d 755 ", "./again f 640 6 ", "./dir d 755 ", "./dir/new f 644 3 ", "./hard f 700 500000 ", "./renamed l 777 4 tool",
        "./small f 640 6 ", "./tool f 755 500000 ", "small 01026d6f7265 new new again 2 hard 5",
    ]

    /// An overlay with an upper directory accepts changes; the image is unchanged.
    @Test(arguments: ["", ",metacopy=on,redirect_dir=on"]) func upperDirectoryOver(options: String) throws {
        let fixture = try FuseFixture()
        try fixture.mount()
        let sums = #"cd "$1/usr"; find . -printf '%p %m %s %T@ %n\n' | sort; cksum tool other small hard"#
        let before = try mustShell(sums, [fixture.fuse])
        let over = fixture.store.folder.path + "/over"
        mkdir(over, 0o755)
        defer { umount2(over + "/merged", Int32(MNT_DETACH)) }
        let lines = try mustShell("umask 022;" + Self.change, [fixture.fuse, over, options]).split(separator: "\n").map(String.init)
        #expect(lines.count == Self.changed.count + 1 && Array(lines.dropLast()) == Self.changed, "\(lines)")
        // Writing through one name separates it from its hard links, so the other name has the old content.
        let byte = FuseFixture.big[1000]
        #expect(lines.last?.split(separator: " ").map(String.init) == ["1001", "130", String(byte, radix: 8)], "\(lines)")
        #expect(try mustShell(sums, [fixture.fuse]) == before)
        // The overlay holds its own copy of the mount, so the server ends with the overlay.
        try fixture.store.succeed(["umount", fixture.fuse])
        #expect(!fixture.isMounted(fixture.fuse) && fixture.servers().count == 1)
        #expect(try readFile(over + "/merged/usr/again") == [1, 2] + Array("more".utf8))
        #expect(try readFile(over + "/merged/usr/hard") == FuseFixture.big)
        #expect(umount2(over + "/merged", 0) == 0)
        #expect(fixture.isQuiet())
        #expect(try fixture.store.succeed(["fsck"]).lines.last == "status: ok")
    }

    /// Without privileges, in a user namespace: an overlay with user attributes on a FUSE mount.
    @Test func upperDirectoryInAUserNamespace() throws {
        guard try launch("unshare", ["-Urm", "true"]).status == 0 else { try Test.cancel("no user namespaces") }
        let fixture = try FuseFixture()
        let over = fixture.store.folder.path + "/over"
        mkdir(over, 0o755)
        let result = try shell(
            #"""
            unshare -Urm bash -euo pipefail -c '
                "$CFSOCI" mount --fuse tool "$2" --repo "$1"
                mkdir "$3/upper" "$3/work" "$3/merged"
                mount -t overlay overlay -o "userxattr,lowerdir=$2,upperdir=$3/upper,workdir=$3/work" "$3/merged"
                cd "$3/merged"
                cmp usr/tool usr/hard
                mkdir more; echo new > more/new; cat more/new; ls
                cd /; umount "$3/merged"; "$CFSOCI" umount "$2" --repo "$1"' bash "$@"
            """#, [fixture.store.path, fixture.fuse, over])
        #expect(result.status == 0 && result.text == "new\nmore\nusr\n", "\(result.text)\(result.error)")
        #expect(try readFile(over + "/upper/more/new") == Array("new\n".utf8))
        #expect(fixture.isQuiet())
    }

    /// `--upperdir` is refused with FUSE, with a hint.
    @Test func upperDirectoryOption() throws {
        let fixture = try FuseFixture()
        let result = try fixture.store.run(["mount", "--fuse", "tool", fixture.fuse, "--upperdir", "/a", "--workdir", "/b"])
        #expect(result.status == 64 && result.error.contains("put an overlay over the mount"), "\(result.error)")
        #expect(fixture.isQuiet())
    }
}
