#!/bin/bash
# The dracut module of cfsoci-setup-root: the root file system is a composefs image. See dracut.modules(7).
# shellcheck disable=SC2154 # dracut sets moddir, initdir, systemdsystemunitdir and SYSTEMCTL

program=/usr/lib/cfsoci/cfsoci-setup-root
configuration=/usr/lib/composefs/setup-root-conf.toml
certificates=/usr/lib/cfsoci/verity-certificates

check() {
    require_binaries "$program" || return 1
    # Without keyctl, the certificates would have no effect.
    ! compgen -G "$certificates/*.der" > /dev/null || require_binaries keyctl
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
    inst_script /usr/lib/cfsoci/load-verity-certificates
    [ ! -e "$configuration" ] || inst_simple "$configuration"
    if compgen -G "$certificates/*.der" > /dev/null; then
        inst_multiple "$certificates"/*.der keyctl
    fi
    if dracut_module_included systemd; then
        inst_simple "$systemdsystemunitdir/cfsoci-setup-root.service"
        $SYSTEMCTL -q --root "$initdir" add-wants initrd-root-fs.target cfsoci-setup-root.service
    else
        inst_hook pre-pivot 10 "$moddir/cfsoci-setup-root.sh"
    fi
}
