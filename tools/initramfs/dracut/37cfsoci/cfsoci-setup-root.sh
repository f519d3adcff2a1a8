#!/bin/sh
# Runs before dracut without systemd switches to the root file system. NEWROOT and die are dracut's.
# shellcheck disable=SC2154

read -r arguments < /proc/cmdline
case " $arguments" in
    *' composefs='* | *' composefs.digest='*)
        /usr/lib/cfsoci/load-verity-certificates
        /usr/lib/cfsoci/cfsoci-setup-root --sysroot "$NEWROOT" || die "The root file system was refused."
        ;;
esac
