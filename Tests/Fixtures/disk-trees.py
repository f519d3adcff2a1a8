#!/usr/bin/env python3
"""Makes all disks of an image, mounts them, and compares their trees with the expected tree. With --extract it compares what the commands write into
directories and archives instead.

    disk-trees.py CFSOCI LAYOUT EXPECTED WORK [--ref NAME] [--platform PLATFORM] [--extract]

Needs root; for disks also loop devices, EROFS, overlayfs and ext4. Prints what differs, one line each; the exit status is 1 if anything does. EXPECTED is a tree
of the corpus, see README.md, or "-" for an image without one, which has one layer. Exceptions of a stack of overlayfs are accepted only if the command has named them.
"""
import argparse
import hashlib
import json
import os
import stat
import subprocess
import sys

sys.dont_write_bytecode = True
from expected_tree import EXT4_TIMES, differences, expected, expected_of_layer, kind_of, on_ext4, percent, with_names  # noqa: E402

arguments = argparse.ArgumentParser()
for name in ["cfsoci", "layout", "expected", "work"]:
    arguments.add_argument(name)
arguments.add_argument("--ref")
arguments.add_argument("--platform")
arguments.add_argument("--extract", action="store_true")
arguments = arguments.parse_args()
faults = []


def run(*command, check=True):
    result = subprocess.run(command, capture_output=True)
    if check and result.returncode != 0:
        sys.exit("%s: status %d: %s" % (" ".join(map(str, command)), result.returncode, result.stderr.decode(errors="replace")))
    return result


def cfsoci(*command):
    return run(arguments.cfsoci, *command, "--repo", "repo")


def found(root):
    nodes, groups = {}, {}

    def add(path, shown):
        status = os.lstat(path)
        kind = kind_of(status.st_mode)
        node = {"type": kind, "uid": status.st_uid, "gid": status.st_gid, "mtime": status.st_mtime_ns}
        if kind != "symlink":
            node["mode"] = stat.S_IMODE(status.st_mode)
        if kind == "file":
            node["size"] = status.st_size
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                while part := file.read(1 << 20):
                    digest.update(part)
            node["sha256"] = digest.hexdigest()
        if kind == "symlink":
            node["target"] = percent(os.readlink(path))
        if kind in ("chr", "blk"):
            node["rdev"] = (os.major(status.st_rdev), os.minor(status.st_rdev))
        node["xattrs"] = {}
        for name in os.listxattr(path, follow_symlinks=False):
            if kind in ("file", "dir") or not name.startswith("user."):
                node["xattrs"][percent(os.fsencode(name))] = os.getxattr(path, name, follow_symlinks=False)
        nodes[shown or "/"] = node
        groups.setdefault((status.st_dev, status.st_ino), []).append(shown or "/")
        if kind == "dir":
            for name in sorted(os.listdir(path)):
                add(path + b"/" + name, shown + "/" + percent(name))

    add(os.fsencode(root), "")
    return with_names(nodes, groups.values())


def compare(title, root, wanted, loose=frozenset()):
    faults.extend("%s: %s" % (title, difference) for difference in differences(wanted, found(root), loose))


class Mounted:
    def __init__(self, kind, source, options):
        self.point = "mounted-%s" % (len(os.listdir(".")))
        os.mkdir(self.point)
        run("mount", "-t", kind, "-o", options, source, self.point)

    def __enter__(self):
        return self.point

    def __exit__(self, *_):
        run("umount", self.point)
        os.rmdir(self.point)


class Loop:
    def __init__(self, *files):
        self.devices = []
        self.files = files

    def __enter__(self):
        for file in self.files:
            self.devices.append(run("losetup", "--find", "--show", "--read-only", file).stdout.decode().strip())
        return self.devices

    def __exit__(self, *_):
        if self.devices:
            run("losetup", "--detach", *self.devices)


def check_stack(files, report, wanted):
    wanted = dict(wanted)
    exceptions = [(item["kind"], "/" + percent(os.fsencode(item["path"])).lstrip("/")) for item in report["exceptions"]]
    for kind, path in exceptions:
        if kind == "whiteoutDevice" and path in wanted:
            assert wanted[path]["type"] == "chr" and wanted[path]["rdev"] == (0, 0), path
            del wanted[path]
    # Overlayfs wants two lower directories.
    if not files:
        return
    mounts = []
    try:
        for file in files:
            mounts.append(Mounted("erofs", file, "ro,loop"))
        os.makedirs("empty", exist_ok=True)
        lower = ":".join([mount.point for mount in reversed(mounts)] + ["empty"])
        with Mounted("overlay", "overlay", "ro,lowerdir=" + lower) as point:
            compare("layered", point, wanted, {path for kind, path in exceptions if kind == "linkAcrossLayers"})
    finally:
        for mount in reversed(mounts):
            mount.__exit__()


def same(one, other):
    if os.path.isdir(one):
        return sorted(os.listdir(one)) == sorted(os.listdir(other)) and all(same(one + "/" + name, other + "/" + name) for name in os.listdir(one))
    return open(one, "rb").read() == open(other, "rb").read()


def check_extracted(wanted):
    """The file system of the working directory is ext4, or one with more times."""
    cfsoci("unpack", "image", "unpacked")
    compare("unpack", "unpacked", clamp(wanted, "unpacked"))
    with open("files.tar", "wb") as archive:
        subprocess.run([arguments.cfsoci, "export", "image", "-", "--repo", "repo"], stdout=archive, check=True)
    os.mkdir("untarred")
    run("tar", "--extract", "--file", "files.tar", "--directory", "untarred", "--xattrs", "--xattrs-include=*", "--numeric-owner",
        "--same-owner", "--preserve-permissions", "--delay-directory-restore")
    compare("tar", "untarred", clamp(wanted, "untarred"))
    # The archive as the only layer of an image.
    digest = hashlib.sha256(open("files.tar", "rb").read()).hexdigest()
    os.makedirs("layout/blobs/sha256")

    def blob(data):
        name = hashlib.sha256(data).hexdigest()
        with open("layout/blobs/sha256/" + name, "wb") as file:
            file.write(data)
        return {"digest": "sha256:" + name, "size": len(data)}

    with open("layout/oci-layout", "w") as file:
        file.write('{"imageLayoutVersion":"1.0.0"}')
    layer = blob(open("files.tar", "rb").read())
    config = blob(json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest]}}).encode())
    manifest = blob(json.dumps({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": dict(config, mediaType="application/vnd.oci.image.config.v1+json"),
        "layers": [dict(layer, mediaType="application/vnd.oci.image.layer.v1.tar")]}).encode())
    with open("layout/index.json", "w") as file:
        json.dump({"schemaVersion": 2, "manifests": [dict(manifest, mediaType="application/vnd.oci.image.manifest.v1+json")]}, file)
    cfsoci("pull", "oci:layout", "flattened", "--platform", "linux/amd64")
    if cfsoci("dump", "image").stdout != cfsoci("dump", "flattened").stdout:
        faults.append("the image of the archive has another tree")


def clamp(wanted, root):
    """The tree with the times that a file system can hold."""
    clamped = {path: dict(node) for path, node in wanted.items()}
    for path, node in clamped.items():
        if not EXT4_TIMES[0] <= node["mtime"] // 10**9 <= EXT4_TIMES[1]:
            time = os.lstat(root + os.path.join("/", path)).st_mtime_ns
            assert time // 10**9 in EXT4_TIMES or time == node["mtime"], (path, time)
            node["mtime"] = time
    return clamped


def main():
    os.chdir(arguments.work)
    layout = "oci:" + arguments.layout + (":" + arguments.ref if arguments.ref else "")
    run(arguments.cfsoci, "init", "repo", "--insecure", "--algorithm", "fsverity-sha256-12")
    cfsoci("pull", layout, "image", *(["--platform", arguments.platform] if arguments.platform else []))
    wanted = expected_of_layer(arguments.layout) if arguments.expected == "-" else expected(arguments.expected)
    if arguments.extract:
        check_extracted(wanted)
    else:
        check_disks(wanted)
    for fault in faults:
        print(fault)
    sys.exit(1 if faults else 0)


def check_disks(wanted):
    reports = {}
    for kind in ["single", "fsmeta", "vmdk", "layered", "flat"]:
        reports[kind] = json.loads(cfsoci("disk", "image", "--kind", kind, "--output", kind, "--json").stdout)
        cfsoci("disk", "image", "--kind", kind, "--output", kind + ".again")
        if not same(kind, kind + ".again"):
            faults.append("%s: two runs gave different bytes" % kind)
    layers = [file["path"] for file in reports["layered"]["files"]]
    with Mounted("erofs", "single", "ro,loop") as point:
        compare("single", point, wanted)
    with Loop("fsmeta", *layers) as devices:
        options = ",".join(["ro"] + ["device=" + device for device in devices[1:]])
        with Mounted("erofs", devices[0], options) as point:
            compare("fsmeta", point, wanted)
    # The disk as the extents of the descriptor give it, sector by sector.
    with open("joined", "wb") as joined:
        for line in open("vmdk/disk.vmdk"):
            if line.startswith("RW "):
                _, count, _, name, offset = line.split()
                with open("vmdk/" + name.strip('"'), "rb") as extent:
                    extent.seek(int(offset) * 512)
                    part = extent.read(int(count) * 512)
                    assert len(part) == int(count) * 512, line
                    joined.write(part)
    with Mounted("erofs", "joined", "ro,loop") as point:
        compare("vmdk", point, wanted)
    check_stack(layers, reports["layered"], wanted)
    with Mounted("ext4", "flat", "ro,loop") as point:
        compare("flat", point, on_ext4(wanted, found(point)))
    for command in [["fsck.erofs", "single"], ["fsck.erofs", "--extract=extracted", "single"], ["fsck.erofs", "joined"], ["dump.erofs", "single"]] + [
            ["fsck.erofs", layer] for layer in layers] + [["e2fsck", "-fn", "flat"]]:
        result = run(*command, check=False)
        if result.returncode != 0:
            faults.append("%s: status %d: %s" % (" ".join(command), result.returncode, (result.stdout + result.stderr).decode(errors="replace")))


main()
