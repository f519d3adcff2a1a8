import ComposefsLinuxSystem
import Glibc
import Testing

/// Mount units of a real systemd, which is the first process of new namespaces. Only in the virtual machine, because it changes /etc.
@Suite(
    .serialized,
    .enabled(
        if: isRoot && getenv("CFSOCI_VERITY_VM") != nil && access("/lib/systemd/systemd", X_OK) == 0,
        "needs systemd, and runs in tools/verity-vm only"))
struct SystemdMountTests {
    /// Two lines of fstab: an image of a secure repository is mounted, and one of an insecure repository is refused because of `verity`.
    @Test(.timeLimit(.minutes(3))) func unitsOfFstab() throws {
        let base = (getenv("CFSOCI_TEST_VERITY_DIR").map { String(cString: $0) } ?? "") + "/systemd-" + Host.randomName(6)
        mkdir(base, 0o755)
        defer {
            umount2(base + "/good", Int32(MNT_DETACH))
            removeTree(base)
        }
        let result = try shell(
            #"""
            base=$1
            mkdir -p "$base/tree/usr" "$base/good" "$base/bad"; echo hello > "$base/tree/usr/file"
            for repository in secure plain; do
                "$CFSOCI" init "$base/$repository" -q $([ $repository = secure ] || echo --insecure) >&2
                id=$("$CFSOCI" --repo "$base/$repository" create-image "$base/tree" tree)
            done
            ln -sfn "$CFSOCI" /usr/sbin/mount.composefs
            [ ! -e /etc/fstab ] || mv /etc/fstab "$base/fstab"
            undo() {
                rm -f /usr/sbin/mount.composefs /etc/fstab /etc/systemd/system/cfsoci-test.service
                [ ! -e "$base/fstab" ] || mv "$base/fstab" /etc/fstab
            }
            trap undo EXIT
            echo "tree $base/good composefs repo=$base/secure,verity,digest=$id,nofail,x-systemd.mount-timeout=30,nosuid 0 0" > /etc/fstab
            echo "tree $base/bad composefs repo=$base/plain,verity,nofail,_netdev 0 0" >> /etc/fstab
            good=$(systemd-escape -p --suffix=mount "$base/good") bad=$(systemd-escape -p --suffix=mount "$base/bad")
            mkdir -p /etc/systemd/system /run/systemd
            cat > "$base/look" <<END
            show() { systemctl show -p ActiveState -p Result --value "\$1" | tr '\\n' ' '; echo; }
            show '$good'; show '$bad'
            cat $base/good/usr/file
            grep -F ' $base/' /proc/self/mountinfo | grep -o -e ' ro,nosuid,' -e 'verity=require'
            systemctl stop '$good'; show '$good'
            grep -cF ' $base/' /proc/self/mountinfo
            END
            cat > /etc/systemd/system/cfsoci-test.service <<END
            [Unit]
            DefaultDependencies=no
            Wants=$good $bad
            After=$good $bad
            [Service]
            Type=oneshot
            StandardOutput=file:$base/out
            StandardError=file:$base/err
            ExecStart=/bin/bash $base/look
            ExecStopPost=/bin/systemctl exit --force --force
            END
            timeout --signal KILL 90 unshare --pid --mount --fork --mount-proc --kill-child env -i container=other PATH="$PATH" \
                /lib/systemd/systemd --system --unit=cfsoci-test.service --log-target=console --show-status=0 \
                < /dev/null > "$base/log" 2>&1 || true
            cat "$base/out" || cat "$base/log"; cat "$base/err" >&2 || true
            """#, [base])
        #expect(result.status == 0, "\(result.error)")
        #expect(
            result.lines == [
                "success active ", "exit-code failed ", "hello", " ro,nosuid,", "verity=require", "success inactive ", "0",
            ], "\(result.text)\(result.error)")
    }
}
