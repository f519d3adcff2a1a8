import ComposefsBytes
import ComposefsLinuxSystem
import Glibc
import Testing

/// Images served with FUSE for and by unprivileged users.
@Suite(.serialized, .enabled(if: isRoot && access("/dev/fuse", F_OK) == 0, "needs root and FUSE"))
struct FusePrivilegeTests {
    /// In its own user and mount namespace, where root has no privileges outside: mounted directly, read without passthrough.
    @Test(arguments: [["--fuse"], []]) func inAUserNamespace(options: [String]) throws {
        guard try launch("unshare", ["-Urm", "true"]).status == 0 else { return }
        let fixture = try FuseFixture()
        let text = try mustShell(
            #"""
            unshare -Urm bash -euo pipefail -c '
                "$CFSOCI" mount tool "$2" --repo "$1" ${3:-} 2> "$1/../said"
                cmp "$2/usr/tool" "$2/usr/hard"; sha256sum < "$2/usr/tool"; stat -c "%u %s %a" "$2/usr/small"
                if : > "$2/new"; then exit 9; fi 2>/dev/null
                grep -F " $2 " /proc/self/mountinfo | grep -o "fuse.composefs composefs:"
                "$CFSOCI" umount "$2" --repo "$1"
                ! grep -qF " $2 " /proc/self/mountinfo' bash "$@"
            cat "$1/../said"
            """#, [fixture.store.path, fixture.fuse] + options)
        let lines = text.split(separator: "\n").map(String.init)
        let sum = try mustShell("sha256sum < \"$1\"", [try fixture.objectPath(FuseFixture.big)]).split(separator: "\n").first.map(
            String.init)
        #expect(lines.first == sum)
        // Owners that the namespace does not map are shown as the overflow user.
        #expect(lines.dropFirst().first == "65534 2 640")
        #expect(lines.contains("fuse.composefs composefs:"))
        // The kernel does not mount EROFS in a user namespace. FUSE is used instead, with a message.
        let note = lines.last { $0.contains("serving the image with FUSE instead") }
        #expect((note != nil) == options.isEmpty)
        #expect(fixture.isQuiet())
    }

    /// Through `fusermount3`, as a user that may use `/dev/fuse`: the device's mode is changed only in a namespace of this test.
    @Test(.enabled(if: hasProgram("fusermount3") && hasProgram("setpriv"), "needs fusermount3 and setpriv")) func throughTheHelper() throws
    {
        let fixture = try FuseFixture()
        let text = try mustShell(
            #"""
            chmod 755 "$3"; chown -R 65534:65534 "$1" "$2"
            unshare -m --propagation private bash -euo pipefail -c '
                mknod "$3/device" c 10 229; chmod 666 "$3/device"; mount --bind "$3/device" /dev/fuse
                as="setpriv --reuid 65534 --regid 65534 --clear-groups"
                $as "$CFSOCI" mount tool "$2" --repo "$1" 2>&1 | sed "s/:.*with FUSE/: with FUSE/"
                $as cmp "$2/usr/tool" "$2/usr/hard"
                grep -F " $2 " /proc/self/mountinfo | grep -c "fuse.composefs composefs:.*user_id=65534"
                if cat "$2/usr/tool" >/dev/null 2>&1; then echo "root looks inside"; fi
                $as bash -c "exec 9< \"$2/usr/tool\"; \"$CFSOCI\" umount \"$2\" --repo \"$1\"" 2>&1 || echo "status $?"
                $as "$CFSOCI" umount "$2" --repo "$1"
                ! grep -qF " $2 " /proc/self/mountinfo
                $as "$CFSOCI" mount --fuse tool "$2" --repo "$1"
                kill $(pgrep -f "^[^ ]*cfsoci mount --fuse tool $2")
                for _ in $(seq 200); do grep -qF " $2 " /proc/self/mountinfo || break; sleep 0.02; done
                ! grep -qF " $2 " /proc/self/mountinfo' bash "$@"
            """#, [fixture.store.path, fixture.fuse, fixture.store.folder.path])
        #expect(
            text == """
                mounting needs root privileges (CAP_SYS_ADMIN in the first user namespace): with FUSE instead
                1
                cfsoci: error: \(fixture.fuse): the mount is in use: stop the processes that use it, or unmount it lazily
                status 6

                """)
        #expect(fixture.isQuiet())
    }

    /// A user that may not unmount gets that error, and not that the mount is in use.
    @Test(.enabled(if: hasProgram("fusermount3") && hasProgram("setpriv"), "needs fusermount3 and setpriv"), arguments: [[], ["--fuse"]])
    func mountsOfOthers(options: [String]) throws {
        let fixture = try FuseFixture()
        chmod(fixture.store.folder.path, 0o755)
        #expect(try fixture.store.run(["mount", "tool", fixture.fuse, "--allow-other"] + options).status == 0)
        for lazily in [[], ["--lazy"]] {
            let result = try launch(
                "setpriv", ["--reuid", "65534", "--regid", "65534", "--clear-groups", Cfsoci.binary, "umount", fixture.fuse] + lazily)
            #expect(result.status == 1)
            #expect(
                result.error.hasPrefix("cfsoci: error: unmounting needs root privileges") && result.error.contains(fixture.fuse),
                "\(result.error)"
            )
        }
        try fixture.store.succeed(["umount", fixture.fuse])
        #expect(fixture.isQuiet())
    }
}
