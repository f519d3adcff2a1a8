import Glibc
import Testing

/// Unusual hosts: without /proc, with file systems that report no size, with mounts inside directories.
@Suite(.enabled(if: isRoot && hasProgram("unshare"), "needs root"))
struct SurroundingsTests {
    /// A root directory with the programs and libraries of this one, the binary as /tmp/cfsoci, and no /proc, in a new mount namespace.
    private static let chroot = #"""
        root=$1/root
        mkdir -p "$root"/{usr,lib,lib64,bin,tmp,dev}
        for name in usr lib lib64 bin; do
            if [ -L /$name ]; then rmdir "$root/$name"; cp -d /$name "$root/$name"; else mount --bind /$name "$root/$name"; fi
        done
        for library in $(ldd "$CFSOCI" | awk '$3 ~ /^\// { print $3 }'); do
            [ -e "$root$library" ] || { mkdir -p "$root$(dirname "$library")"; cp "$library" "$root$library"; }
        done
        cp "$CFSOCI" "$root/tmp/cfsoci"
        run() { chroot "$root" /tmp/cfsoci "$@"; }
        """#

    private func inNamespace(_ script: String, _ arguments: [String]) throws -> String {
        let result = try launch(
            "unshare", ["-m", "bash", "-euo", "pipefail", "-c", script, "bash"] + arguments, environment: ["CFSOCI=" + Cfsoci.binary])
        guard result.status == 0 else { throw RunFailure(description: "status \(result.status): \(result.error)\(result.text)") }
        return result.text
    }

    /// Swift reads a process's arguments from /proc; cfsoci gets them from the C library.
    @Test func withoutProcCommandsDoWhatTheySay() throws {
        let folder = try TemporaryFolder()
        try LayoutBuilder.small().write(to: folder.path + "/root/tmp/layout")
        let text = try inNamespace(
            Self.chroot + #"""

                ! [ -e "$root/proc" ]
                run --version
                run --repo /tmp/repo init --insecure > /dev/null
                [ -e "$root/tmp/repo/meta.json" ]
                run --repo /tmp/repo -q pull oci:/tmp/layout t | sed -n 's/^tagged  //p'
                run --repo /tmp/repo images --json | grep -c '"name": "t"'
                run --repo /tmp/repo cat t usr/small
                run --repo /tmp/repo fsck --deep | tail -n 1
                run --repo /tmp/repo export t oci:/tmp/out 2>/dev/null | sed -n 's/^pushed  //p'
                run --repo /tmp/repo rm t
                # The images in use are unknown: nothing is collected.
                status=0; run --repo /tmp/repo gc 2> "$1/err" || status=$?
                echo "$status $(grep -c '/proc is not mounted' "$1/err")"
                status=0; run --repo /nonexistent fsck 2> "$1/err" || status=$?
                echo "$status $(grep -c 'no repository' "$1/err")"
                status=0; run bogus 2> "$1/err" || status=$?
                echo "$status $(grep -c bogus "$1/err")"
                status=0; run --repo /tmp/repo prune --all 2> "$1/err" || status=$?
                echo "$status $(grep -c '/proc is not mounted' "$1/err")"
                run mount.composefs --version 
                """#, [folder.path])
        let version = try Cfsoci.succeed(["--version"]).text
        #expect(
            text == version
                + "t\n1\nhello from test layer\nstatus: ok\noci:/tmp/out\nRemoved tag t\n1 1\n3 1\n64 1\n1 1\nmount.composefs (cfsoci) \(version)"
        )
    }

    /// Mounted and booted images cannot be determined, so no tag is removed as unused.
    @Test func withoutProcNothingCountsAsUnused() throws {
        let folder = try TemporaryFolder()
        try LayoutBuilder.small().write(to: folder.path + "/root/tmp/layout")
        let text = try inNamespace(
            Self.chroot + #"""

                run --repo /tmp/repo init --insecure > /dev/null
                run --repo /tmp/repo -q pull oci:/tmp/layout t > /dev/null
                for dry in "" --dry-run; do
                    status=0; run --repo /tmp/repo prune --all $dry > /dev/null 2>&1 || status=$?; echo $status
                done
                run --repo /tmp/repo images --json | grep -c '"name": "t"'
                """#, [folder.path])
        #expect(text == "1\n1\n1\n")
    }

    /// ramfs, and tmpfs without a limit, report no blocks, which is different from no free blocks.
    @Test(arguments: ["-t ramfs x", "-t tmpfs -o size=0 x", "-t tmpfs -o size=0,nr_inodes=0 x"])
    func fileSystemsWithoutSize(mount: String) throws {
        let folder = try TemporaryFolder()
        try LayoutBuilder.small().write(to: folder.path + "/layout")
        let text = try inNamespace(
            #"""
            mkdir "$1/m"; mount \#(mount) "$1/m"
            "$CFSOCI" -q --repo "$1/m/repo" pull "oci:$1/layout" t > /dev/null
            "$CFSOCI" --repo "$1/m/repo" fsck | tail -n 1
            """#, [folder.path])
        #expect(text == "status: ok\n")
    }

    /// A directory is read on its own file system only. A mount point inside is an empty directory, in all commands that read directories.
    @Test func mountPointsAreEmpty() throws {
        let folder = try TemporaryFolder()
        let text = try inNamespace(
            #"""
            mkdir -p "$1"/t/{usr,proc,sys/deep,data}; head -c 100 /dev/zero > "$1/t/data/own"
            mount -t proc p "$1/t/proc"; mount -t tmpfs -o mode=750,uid=7,gid=8 x "$1/t/sys/deep"; echo 1 > "$1/t/sys/deep/hidden"
            "$CFSOCI" create-dumpfile "$1/t" --hash sha256 2> "$1/err" | cut -d' ' -f1-6 > "$1/dump"
            cut -d' ' -f1 "$1/dump"; sed -n 's/^\/sys\/deep //p' "$1/dump"
            cat "$1/err"
            id=$("$CFSOCI" -q compute-id --path "$1/t" --hash sha512)
            "$CFSOCI" -q --repo "$1/repo" init --insecure > /dev/null
            [ "$("$CFSOCI" -q --repo "$1/repo" create-image "$1/t")" = "$id" ]
            # The same tree without the mounts has the same identifier, once owners, modes and times are those of what was mounted.
            """#, [folder.path])
        #expect(
            text == """
                /
                /data
                /data/own
                /proc
                /sys
                /sys/deep
                /usr
                0 40750 2 7 8
                left empty, because other file systems are mounted there: proc, sys/deep (2 in all)

                """)
    }

    /// The root of the running system.
    @Test func theRunningRoot() throws {
        let folder = try TemporaryFolder()
        let text = try inNamespace(
            #"""
            mkdir "$1/root"; mount -t tmpfs x "$1/root"

            """# + Self.chroot + #"""

                mkdir "$root"/{proc,sys}
                mount -t proc p "$root/proc"; mount -t sysfs s "$root/sys"; mount --rbind /dev "$root/dev"
                run -q compute-id --path / --hash sha256
                """#, [folder.path])
        #expect(text.count == 65)
    }
}
