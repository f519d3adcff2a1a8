#!/bin/bash
# The dracut module of cfsoci-setup-root: the root file system is a composefs image. See dracut.modules(7).
# shellcheck disable=SC2154 # dracut sets moddir, initdir, systemdsystemunitdir and SYSTEMCTL

program=/usr/lib/cfsoci/cfsoci-setup-root
configuration=/usr/lib/composefs/setup-root-conf.toml

check() {
    require_binaries "$program"
}

depends() {
    return 0
}

installkernel() {
    # Kernels before 6.12 mount images through a loop device.
    hostonly='' instmods erofs overlay loop
}

install() {
    inst "$program"
    [ ! -e "$configuration" ] || inst_simple "$configuration"
    if dracut_module_included systemd; then
        inst_simple "$systemdsystemunitdir/cfsoci-setup-root.service"
        $SYSTEMCTL -q --root "$initdir" add-wants initrd-root-fs.target cfsoci-setup-root.service
    else
        inst_hook pre-pivot 10 "$moddir/cfsoci-setup-root.sh"
    fi
}
