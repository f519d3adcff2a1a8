"""The expected trees of the corpus, and how they differ from what a kernel shows. README.md describes the files.

A tree maps each path to its type, mode, owner, time, and so on; `names` are the paths of the same inode.
"""
import base64
import hashlib
import json
import os
import stat
import tarfile

# The extended attributes that a kernel shows.
SHOWN = (b"user.", b"trusted.", b"security.", b"system.posix_acl_")
TYPES = {"file": stat.S_IFREG, "dir": stat.S_IFDIR, "symlink": stat.S_IFLNK, "chr": stat.S_IFCHR, "blk": stat.S_IFBLK,
         "fifo": stat.S_IFIFO, "sock": stat.S_IFSOCK}
# In seconds.
EXT4_TIMES = (-(1 << 31), (1 << 31) + (3 << 32) - 1)


def percent(name):
    return "".join(chr(byte) if 0x21 <= byte <= 0x7e and byte != 0x25 else "%%%02X" % byte for byte in name)


def nanoseconds(text):
    seconds, _, fraction = text.partition(".")
    # Rounded down: the fraction counts upwards from the seconds.
    return int(seconds) * 10**9 + int((fraction or "0").ljust(9, "0")[:9])


def kind_of(mode):
    return next(name for name, bits in TYPES.items() if stat.S_IFMT(mode) == bits)


def with_names(nodes, groups):
    """Adds to each node the paths of its inode. `groups` are lists of paths."""
    for names in groups:
        for name in names:
            nodes[name]["names"] = frozenset(names)
    return nodes


def expected(file):
    """The tree of a file of the corpus."""
    nodes, groups = {}, {}
    with open(file) as tree:
        entries = json.load(tree)["entries"]
    for entry in entries:
        node = {"type": entry["type"], "uid": entry["uid"] or 0, "gid": entry["gid"] or 0, "mtime": nanoseconds(entry.get("mtime") or "0")}
        if node["type"] != "symlink":
            node["mode"] = int(entry["mode"] or "755", 8)
        if node["type"] == "file":
            node["size"], node["sha256"] = entry["size"], entry["sha256"]
        if node["type"] == "symlink":
            node["target"] = entry["target"]
        if node["type"] in ("chr", "blk"):
            device = entry["rdev"]
            node["rdev"] = tuple(device) if isinstance(device, list) else tuple(int(part) for part in str(device).split(":"))
        node["xattrs"] = {name: base64.b64decode(value) for name, value in (entry.get("xattrs") or {}).items()
                          if name.encode().startswith(SHOWN)}
        if node["type"] not in ("file", "dir"):
            node["xattrs"] = {name: value for name, value in node["xattrs"].items() if not name.startswith("user.")}
        groups.setdefault(entry.get("hardlink") or entry["path"], []).append(entry["path"])
        nodes[entry["path"]] = node
    return with_names(nodes, groups.values())


def expected_of_layer(layout):
    """The tree of an image without a file: that of its only layer, which has only directories and files, as Python reads it."""
    def blob(descriptor):
        return os.path.join(layout, "blobs", *descriptor["digest"].split(":"))

    with open(os.path.join(layout, "index.json")) as file:
        [manifest] = json.load(file)["manifests"]
    with open(blob(manifest)) as file:
        [layer] = json.load(file)["layers"]
    nodes = {"/": {"type": "dir", "uid": 0, "gid": 0, "mtime": 0, "mode": 0o755, "xattrs": {}, "names": frozenset("/")}}
    with tarfile.open(blob(layer)) as archive:
        for member in archive:
            path = "/" + percent(os.fsencode(member.name))
            node = {"type": "dir", "uid": member.uid, "gid": member.gid, "mtime": int(member.mtime) * 10**9, "mode": member.mode,
                    "xattrs": {}, "names": frozenset([path])}
            if not member.isdir():
                assert member.isreg() and not member.pax_headers.keys() - {"path"}, member
                content = archive.extractfile(member).read()
                node.update(type="file", size=len(content), sha256=hashlib.sha256(content).hexdigest())
            assert path not in nodes and os.path.dirname(path) in nodes, path
            nodes[path] = node
    return nodes


def differences(wanted, present, loose=frozenset()):
    """What differs, one text each. Names in `loose` may have lost their hard links."""
    for path in sorted(wanted.keys() | present.keys()):
        one, other = wanted.get(path), present.get(path)
        if one is None or other is None:
            yield "%s is %s" % (path, "missing" if other is None else "not expected")
            continue
        for key in sorted(one.keys() | other.keys()):
            if key == "names" and one["names"] & loose:
                continue
            if one.get(key) != other.get(key):
                yield "%s has %s %s, expected %s" % (path, key, other.get(key), one.get(key))


def on_ext4(wanted, present):
    """The tree with the times that ext4 can hold, and with the directory that each ext4 file system has. A time out of range must be present as the
    nearest one: its nanoseconds are not compared."""
    clamped = {path: dict(node) for path, node in wanted.items()}
    if "/lost+found" in present:
        clamped.setdefault("/lost+found", present["/lost+found"])
    for path, node in clamped.items():
        if path in present and not EXT4_TIMES[0] <= node["mtime"] // 10**9 <= EXT4_TIMES[1]:
            time = present[path]["mtime"]
            assert time // 10**9 == EXT4_TIMES[node["mtime"] > 0], (path, time)
            node["mtime"] = time
    return clamped
