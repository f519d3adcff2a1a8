"""The tree of an OCI image, built from its layers with Python's tarfile, without any code of the project.

Layers are merged by the rules of the OCI image specification. Then the rules of the repository format for container images apply: the root
directory gets the metadata of /usr, /run is empty and gets the time of /usr, and of the extended attributes only security.capability is kept.
"""

import hashlib
import json
import os
import stat
import subprocess
import tarfile
from decimal import Decimal

KINDS = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.AREGTYPE: stat.S_IFREG,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}
XATTR = "SCHILY.xattr."


class Node:
    """An inode. Only directories have `children`."""

    __slots__ = ("kind", "mode", "uid", "gid", "mtime", "rdev", "size", "content", "target", "xattrs", "children")

    def __init__(self, kind, mode=0o755, uid=0, gid=0, mtime=0, xattrs=()):
        self.kind, self.mode, self.uid, self.gid, self.mtime, self.xattrs = kind, mode, uid, gid, mtime, dict(xattrs)
        self.rdev, self.size, self.content, self.target = 0, 0, None, None
        self.children = {} if kind == stat.S_IFDIR else None

    def take_metadata(self, other):
        self.mode, self.uid, self.gid, self.mtime, self.xattrs = other.mode, other.uid, other.gid, other.mtime, dict(other.xattrs)


def document(layout, descriptor):
    with open(blob_path(layout, descriptor["digest"]), "rb") as source:
        return json.load(source)


def blob_path(layout, digest):
    return os.path.join(layout, "blobs", digest.replace(":", "/"))


def layer_paths(layout):
    with open(os.path.join(layout, "index.json")) as source:
        manifest = document(layout, json.load(source)["manifests"][0])
    return [blob_path(layout, layer["digest"]) for layer in manifest["layers"]]


def nanoseconds(member):
    exact = member.pax_headers.get("mtime")
    return int(Decimal(exact) * 10**9) if exact else int(member.mtime) * 10**9


def read_layer(path):
    """The entries of a layer in order: the path as a tuple of names, and a node or, for a hard link, the target's path."""
    entries = []
    with subprocess.Popen(["gzip", "-dc", path], stdout=subprocess.PIPE) as process:
        with tarfile.open(fileobj=process.stdout, mode="r|", encoding="utf-8", errors="surrogateescape") as archive:
            for member in archive:
                names = split(member.name)
                if member.islnk():
                    entries.append((names, split(member.linkname)))
                    continue
                node = Node(KINDS[member.type], member.mode, member.uid, member.gid, nanoseconds(member))
                for key, value in member.pax_headers.items():
                    if key.startswith(XATTR):
                        node.xattrs[os.fsencode(key[len(XATTR) :])] = value.encode("utf-8", "surrogateescape")
                if member.issym():
                    node.target = os.fsencode(member.linkname)
                    node.size = len(node.target)
                elif member.isreg():
                    node.size, node.content = member.size, digest(archive.extractfile(member))
                elif member.ischr() or member.isblk():
                    node.rdev = os.makedev(member.devmajor, member.devminor)
                entries.append((names, node))
        if process.wait() != 0:
            raise RuntimeError(f"gzip cannot read {path}")
    return entries


def split(path):
    return tuple(name for name in os.fsencode(path).split(b"/") if name not in (b"", b"."))


def digest(source):
    hasher = hashlib.sha256()
    while data := source.read(1 << 20):
        hasher.update(data)
    return hasher.hexdigest()


def find(root, names):
    for name in names:
        if root is None or root.children is None:
            return None
        root = root.children.get(name)
    return root


def directory(root, names):
    """The directory at a path. Creates missing directories."""
    for name in names:
        below = root.children.get(name)
        if below is None or below.children is None:
            below = root.children[name] = Node(stat.S_IFDIR)
        root = below
    return root


def hide(root, names):
    """A whiteout: hides entries of lower layers."""
    parent, name = find(root, names[:-1]), names[-1]
    if parent is None or parent.children is None:
        return
    if name == b".wh..wh..opq":
        parent.children.clear()
    else:
        parent.children.pop(name[len(b".wh.") :], None)


def apply(root, entries):
    """Applies a layer to a tree: whiteouts first, because they only affect lower layers."""
    for names, _ in entries:
        if names and names[-1].startswith(b".wh."):
            hide(root, names)
    for names, node in entries:
        if names and names[-1].startswith(b".wh."):
            continue
        if not names:
            root.take_metadata(node)
            continue
        if isinstance(node, tuple):
            node = find(root, node)
        parent = directory(root, names[:-1])
        old = parent.children.get(names[-1])
        if old is not None and old.children is not None and node.children is not None:
            old.take_metadata(node)
        else:
            parent.children[names[-1]] = node


def container(root):
    """Applies the rules for the root file system of a container."""
    usr = root.children.get(b"usr")
    root.take_metadata(usr if usr is not None else Node(stat.S_IFDIR))
    run = root.children.get(b"run")
    if run is not None:
        run.children, run.mtime = {}, root.mtime
    for _, node in walk(root):
        node.xattrs = {name: value for name, value in node.xattrs.items() if name == b"security.capability"}


def walk(root, path=b""):
    """All entries with their paths; the root's is empty."""
    waiting = [(path, root)]
    while waiting:
        path, node = waiting.pop()
        yield path, node
        for name, child in (node.children or {}).items():
            waiting.append((path + b"/" + name if path else name, child))


def describe(layers):
    """The merged tree of layers from `read_layer`: the attributes of each path, for comparison."""
    root = Node(stat.S_IFDIR)
    for entries in layers:
        apply(root, entries)
    container(root)
    groups = {}
    for path, node in walk(root):
        groups.setdefault(id(node), []).append(path)
    tree = {}
    for path, node in walk(root):
        names = sorted(groups[id(node)])
        tree[path] = {
            "kind": node.kind,
            "mode": node.mode,
            "uid": node.uid,
            "gid": node.gid,
            "mtime": node.mtime,
            "xattrs": node.xattrs,
        }
        if node.children is None:
            tree[path] |= {
                "size": node.size,
                "rdev": node.rdev,
                "nlink": len(names),
                "links": names,
                "target": node.target,
                "content": node.content,
            }
        else:
            tree[path] |= {"names": sorted(node.children)}
    return tree
