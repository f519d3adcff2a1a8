"""The image that boots: Debian with a kernel, the initial RAM disk of tools/initramfs, and a report instead of services."""
import glob, hashlib, os, re, shutil, sys, threading

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + "/faults.d")
import images  # noqa: E402
from checks import CFSOCI, HERE, make, run, shell, write  # noqa: E402

SUITE = "trixie"
PACKAGES = ["systemd-sysv", "udev", "kmod", "zstd", "linux-image-cloud-amd64", "systemd-boot-efi", "keyutils"]
PROGRAM = "/usr/lib/boot-test/program"


def base(cache, generator):
    """The archive of a small Debian with a kernel, and a program that makes initial RAM disks."""
    packages = [*PACKAGES, generator]
    key = hashlib.sha256(" ".join([SUITE, *packages]).encode()).hexdigest()[:12]
    archive = f"{cache}/debian-{SUITE}-{key}.tar"
    if not os.path.exists(archive):
        make(cache)
        address = shell(f". {HERE}/verity-vm.d/debian-archive; archive_address").strip()
        paths = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ["doc", "man", "locale"]]
        temporary, options = f"{archive}.{os.getpid()}", f"{archive}.apt"
        write(options, shell("archive_options"))
        run("mmdebstrap", "--quiet", "--variant=minbase", "--format=tar", "--aptopt=" + options, "--include=" + ",".join(packages), *paths, SUITE,
            temporary, f"deb {address} {SUITE} main")
        os.rename(temporary, archive)
    return archive


def chroot(root, *command):
    """Runs a command in the tree, with /dev, /proc and /sys."""
    mounts = "".join(f"mount --rbind --make-rslave /{name} '{root}/{name}'; " for name in ["dev", "proc", "sys"])
    run("unshare", "--mount", "bash", "-c", f"set -e; {mounts} exec chroot '{root}' \"$@\"", "chroot", *command)


def make_tree(archive, generator, tree, program, certificate):
    """Debian with what cfsoci-boot installs, the report, and an initial RAM disk, in which is the certificate for signatures of fs-verity."""
    make(tree)
    run("tar", "--extract", "--file", archive, "--directory", tree, "--numeric-owner", "--same-permissions")
    files = [(program, "/usr/lib/cfsoci/cfsoci-setup-root"), (certificate, "/usr/lib/cfsoci/verity-certificates/boot-test.der"),
             (HERE + "/initramfs/load-verity-certificates", "/usr/lib/cfsoci/load-verity-certificates"),
             (HERE + "/boot-test.d/report", "/usr/lib/boot-test/report"), (HERE + "/boot-test.d/boot-test.service", "/usr/lib/systemd/system/boot-test.service")]
    if generator == "dracut":
        files += [(path, "/usr/lib/dracut/modules.d/37cfsoci/" + os.path.basename(path)) for path in glob.glob(HERE + "/initramfs/dracut/37cfsoci/*")]
        files.append((HERE + "/initramfs/systemd/cfsoci-setup-root.service", "/usr/lib/systemd/system/cfsoci-setup-root.service"))
    else:
        for place in ["hooks", "scripts/local-bottom"]:
            files.append((f"{HERE}/initramfs/initramfs-tools/{place}/cfsoci", f"/usr/share/initramfs-tools/{place}/cfsoci"))
    for source, path in files:
        make(os.path.dirname(tree + path))
        shutil.copy(source, tree + path)
        os.chmod(tree + path, 0o644 if path.endswith((".der", ".service")) else 0o755)
    write(tree + "/usr/lib/boot-test/version", "one\n")
    for number in range(3):
        write(f"{tree}/usr/lib/boot-test/data-{number}", content(number))
    write(tree + "/etc/boot-test.d/given", "of the image\n")
    make(tree + "/sysroot")
    # Only what reports is started: the rest of the system does not show more, and takes most of the time without KVM.
    units = tree + "/usr/lib/systemd/system"
    write(units + "/boot-test.target", "[Unit]\nDescription=Report\nRequires=boot-test.service\nAfter=boot-test.service\n")
    if os.path.lexists(units + "/default.target"):
        os.unlink(units + "/default.target")
    os.symlink("boot-test.target", units + "/default.target")
    if generator == "dracut":
        kernel = sorted(os.listdir(tree + "/usr/lib/modules"))[-1]
        chroot(tree, "dracut", "--force", "--quiet", "--no-hostonly", f"/boot/initrd.img-{kernel}", kernel)
    else:
        chroot(tree, "update-initramfs", "-u")
    write(tree + "/etc/fstab", "")
    write(tree + "/etc/machine-id", "uninitialized\n")


def content(number):
    """What is in the file data-NUMBER."""
    return hashlib.sha256(bytes([number])).digest() * 2000


def add_program(tree):
    """cfsoci with its libraries and the dynamic linker, so that it runs in any system, and the units of the package."""
    place = make(tree + PROGRAM)
    write(tree + "/usr/bin/cfsoci", f'#!/bin/sh\nexec {PROGRAM}/linker --library-path {PROGRAM} {PROGRAM}/cfsoci "$@"\n', mode=0o755)
    shutil.copytree(HERE + "/package.d/systemd", tree + "/usr/lib/systemd/system")
    run("strip", "-o", place + "/cfsoci", CFSOCI)
    for name, path in re.findall(r"^\s*(?:(\S+) => )?(/\S+) \(", run("ldd", CFSOCI), flags=re.M):
        shutil.copy(path, place + "/" + (name or "linker"))


class Layout(images.Layout):
    """A layout of images that have layers in common. Parts of the test add to it while others read it."""

    def __init__(self, path):
        super().__init__(path)
        self.entries, self.lock, self.count = [], threading.Lock(), 0

    def layer(self, tree, exclude=()):
        with self.lock:
            self.count += 1
            path = f"{self.folder}/layer-{self.count}"
        run("tar", "--create", "--file", path, "--directory", tree, "--sort=name", "--numeric-owner", "--xattrs", "--xattrs-include=security.*",
            *[f"--exclude={name}" for name in exclude], ".")
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.rename(path, f"{self.folder}/blobs/sha256/{digest}")
        return {"mediaType": images.LAYER, "digest": "sha256:" + digest, "size": os.path.getsize(f"{self.folder}/blobs/sha256/{digest}")}

    def add(self, tag, layers):
        entry = self.image(layers) | {"annotations": {"org.opencontainers.image.ref.name": tag}}
        with self.lock:
            self.entries.append(entry)
            self.finish(self.entries)
