#!/usr/bin/env python3
"""Checks that a mounted image equals the original: compares the kernel's mount, FUSE, and the layers as merged by Python, entry by entry.

The image is the bench image B with two more layers (odd.py), which have entries that a system's own files lack. original.py reads the original
from the layers. All its attributes are compared: kind, mode, owners, size, modification time in nanoseconds, device numbers, hard links,
symlink targets, extended attributes, content (SHA-256) and directory listings. The mounts are also compared with each other: sizes and link
counts of directories, times of access and change, block sizes. In each mount, directory entries must have the inode numbers and kinds that
lstat shows, inode numbers must be unique, and files must have blocks for their size.

Then one attribute of one entry of a small image is altered, once for each attribute. The comparison must find that difference and no other.

  CFSOCI=… BENCH_DIR=… equality.py [--layout LAYOUT | --small] [--only-mounts | --only-alterations]

The exit status is 1 if anything differs, or if an alteration is not found.
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time

import odd
import original

COMMAND = os.environ["CFSOCI"]
DIRECTORY = os.environ["BENCH_DIR"]
HERE = os.path.dirname(os.path.abspath(__file__))

# The original determines the compared attributes. Two mounts are also compared by these.
BETWEEN_MOUNTS = ("size", "nlink", "atime", "ctime", "blksize", "flags")
SHOWN = 20


# Reading a tree


def scan(root, is_secure=False):
    """The attributes of each path of a mounted tree, as system calls return them, and inconsistencies within the tree."""
    root = os.fsencode(root)
    tree, inodes, faults = {}, {}, []
    flags = os.statvfs(root).f_flag & (os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC)
    waiting = [(b"", os.lstat(root))]
    while waiting:
        path, status = waiting.pop()
        full = root + b"/" + path if path else root
        kind = stat.S_IFMT(status.st_mode)
        attributes = tree[path] = {
            "kind": kind,
            "mode": stat.S_IMODE(status.st_mode),
            "uid": status.st_uid,
            "gid": status.st_gid,
            "size": status.st_size,
            "mtime": status.st_mtime_ns,
            "atime": status.st_atime_ns,
            "ctime": status.st_ctime_ns,
            "nlink": status.st_nlink,
            "blksize": status.st_blksize,
            "flags": flags,
            "xattrs": {
                os.fsencode(name): os.getxattr(full, name, follow_symlinks=False)
                for name in os.listxattr(full, follow_symlinks=False)
            },
        }
        inodes.setdefault((status.st_dev, status.st_ino), []).append(path)
        if kind == stat.S_IFDIR:
            with os.scandir(full) as entries:
                entries = list(entries)
            attributes["names"] = sorted(entry.name for entry in entries)
            for entry in entries:
                below = entry.stat(follow_symlinks=False)
                child = path + b"/" + entry.name if path else entry.name
                if entry.inode() != below.st_ino:
                    faults.append((child, f"the directory says inode {entry.inode()}, lstat {below.st_ino}"))
                said = (entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False), entry.is_symlink())
                if said != (stat.S_ISDIR(below.st_mode), stat.S_ISREG(below.st_mode), stat.S_ISLNK(below.st_mode)):
                    faults.append((child, "the directory says another kind than lstat"))
                waiting.append((child, below))
            continue
        attributes["rdev"] = status.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
        attributes["target"] = os.readlink(full) if kind == stat.S_IFLNK else None
        attributes["content"] = content(full, status.st_size, path, faults) if kind == stat.S_IFREG else None
        # At most the pages of the content, and none for an empty file. The hashes of fs-verity may be included.
        most = (status.st_size + 4095) // 4096 * 4096
        if status.st_blocks * 512 > most + (status.st_size // 32 + 3 * 4096 if is_secure and status.st_size else 0):
            faults.append((path, f"{status.st_blocks} blocks of 512 bytes for a size of {status.st_size}"))
    for paths in inodes.values():
        if len(paths) > 1 and tree[paths[0]]["kind"] == stat.S_IFDIR:
            faults.append((paths[0], "a directory has the inode number of something else"))
        for path in paths:
            if tree[path]["kind"] != stat.S_IFDIR:
                tree[path]["links"] = sorted(paths)
    return tree, faults


def content(full, size, path, faults):
    hasher, length = hashlib.sha256(), 0
    with open(full, "rb", buffering=0) as source:
        while data := source.read(1 << 20):
            hasher.update(data)
            length += len(data)
    if length != size:
        faults.append((path, f"reading gives {length} bytes, lstat says {size}"))
    return hasher.hexdigest()


# Comparing


def compare(expected, found, more=()):
    """Differences as (path, attribute, text)."""
    differences = []
    for path in sorted(expected.keys() | found.keys()):
        if path not in found or path not in expected:
            differences.append((path, "entry", "is missing" if path in expected else "should not be there"))
            continue
        wanted, is_there = expected[path], found[path]
        for attribute in dict.fromkeys([*wanted, *more]):
            one, two = wanted.get(attribute), is_there.get(attribute)
            if one != two:
                differences.append((path, attribute, f"{attribute}: {two!r} instead of {one!r}"))
    return differences


def show(differences):
    for path, _, text in differences[:SHOWN]:
        print(f"    {os.fsdecode(path)!r}: {text}"[:400])
    if len(differences) > SHOWN:
        print(f"    and {len(differences) - SHOWN} more")


# Mounting


def run(*arguments):
    subprocess.run([COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL)


class Mounted:
    """Pulls a layout into a new repository and mounts it both ways while the block runs."""

    def __init__(self, layout, directory):
        self.layout, self.base = layout, tempfile.mkdtemp(dir=directory)
        self.is_secure = False
        self.kernel, self.fuse = os.path.join(self.base, "kernel"), os.path.join(self.base, "fuse")

    def __enter__(self):
        try:
            repository = os.path.join(self.base, "repo")
            # With fs-verity if the file system supports it.
            self.is_secure = subprocess.run([COMMAND, "init", repository, "--quiet"], capture_output=True, check=False).returncode == 0
            if not self.is_secure:
                run("init", repository, "--insecure", "--quiet")
            run("--repo", repository, "--quiet", "pull", f"oci:{self.layout}:bench", "bench")
            for path, options in ((self.kernel, []), (self.fuse, ["--fuse"])):
                os.mkdir(path)
                run("--repo", repository, "--quiet", "mount", "bench", path, *options)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for path in (self.kernel, self.fuse):
            if os.path.ismount(path):
                subprocess.run([COMMAND, "umount", "--lazy", path], check=False)
        shutil.rmtree(self.base, ignore_errors=True)


# The two parts


def compare_mounts(layout, directory, workers):
    """Whether everything is equal."""
    start = time.monotonic()
    layers = [workers.submit(original.read_layer, path) for path in original.layer_paths(layout)]
    expected = workers.submit(original.describe, [layer.result() for layer in layers])
    with Mounted(layout, directory) as mounted:
        # Not at the same time: both read the same objects.
        scans = [workers.submit(scan, path, mounted.is_secure) for path in (mounted.kernel, mounted.fuse)]
        (kernel, kernel_faults), (fuse, fuse_faults) = (future.result() for future in scans)
    expected = expected.result()
    files = [entry for entry in expected.values() if entry["kind"] == stat.S_IFREG]
    linked = sum(1 for path, entry in expected.items() if entry.get("nlink", 1) > 1 and entry["links"][0] == path)
    print(
        f"equality: {len(expected)} entries of {len(layers)} layers, {len(files)} files with {sum(e['size'] for e in files) / 1e6:.0f} MB, "
        f"{linked} inodes with several names, {sum(1 for e in expected.values() if e['xattrs'])} entries with extended attributes; "
        f"in a repository with{'' if mounted.is_secure else 'out'} fs-verity"
    )
    is_equal = True
    for name, differences in (
        ("the kernel's mount and the original", compare(expected, kernel)),
        ("FUSE and the original", compare(expected, fuse)),
        ("FUSE and the kernel's mount", compare(kernel, fuse, BETWEEN_MOUNTS)),
        ("the kernel's mount in itself", [(path, "", text) for path, text in kernel_faults]),
        ("FUSE in itself", [(path, "", text) for path, text in fuse_faults]),
    ):
        print(f"  {name}: {len(differences)} differences")
        show(differences)
        is_equal = is_equal and not differences
    print(f"  in {time.monotonic() - start:.0f} s")
    return is_equal


def make(recipe, directory):
    """The layout of a recipe of images.py; creates it if it is missing."""
    layout = os.path.join(directory, "image-" + "".join(letter if letter.isalnum() else "-" for letter in recipe))
    if not os.path.exists(os.path.join(layout, "facts.json")):
        subprocess.run([sys.executable, os.path.join(HERE, "images.py"), recipe, layout], check=True)
    return layout


def expected_of(layout):
    return original.describe([original.read_layer(path) for path in original.layer_paths(layout)])


def compare_altered(alteration, expected, directory):
    """The result of comparing a mounted image with one alteration: (alteration, the kernel's attributes, FUSE's attributes)."""
    with Mounted(make("odd:" + alteration, directory), directory) as mounted:
        found = [compare(expected, scan(path, mounted.is_secure)[0]) for path in (mounted.kernel, mounted.fuse)]
    return alteration, [sorted({(path, attribute) for path, attribute, _ in differences}) for differences in found]


# Attributes that necessarily change together with another, and where.
CONSEQUENCES = {
    "kind": {"kind", "content", "links", "nlink", "rdev"},
    "size": {"size", "content"},
    "links": {"links", "nlink", "size", "content", "uid", "mode"},
    "target": {"target"},
    "entry": {"entry", "names"},
    "directory's mode": {"mode"},
    "directory's mtime": {"mtime"},
}


def prove(directory, workers):
    """Whether each alteration is found in both mounts, and nothing else."""
    expected = expected_of(make("odd", directory))
    futures = [workers.submit(compare_altered, alteration, expected, directory) for alteration in odd.ALTERATIONS]
    is_proved, cells = True, []
    for future in futures:
        alteration, sides = future.result()
        wanted = alteration.removeprefix("directory's ")
        for side, found in zip(("the kernel's mount", "FUSE"), sides):
            attributes = {attribute for _, attribute in found}
            if wanted not in attributes or attributes - CONSEQUENCES.get(alteration, {alteration}):
                print(f"  altered {alteration}: in {side} found {found}")
                is_proved = False
        cells.append(alteration)
    if is_proved:
        print(f"  altered in one entry of an image each, and found in both mounts: {', '.join(cells)}")
    return is_proved


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layout", help="compare this image, whose layers are gzip and whose name is 'bench' (default: create one)")
    parser.add_argument("--small", action="store_true", help="only the two layers of odd.py")
    parser.add_argument("--only-mounts", action="store_true", help="without the alterations")
    parser.add_argument("--only-alterations", action="store_true", help="only the alterations")
    options = parser.parse_args()
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        sys.exit("equality: needs root and FUSE")
    # Unmounts its file systems even if a signal ends the program.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.makedirs(DIRECTORY, exist_ok=True)
    directory = tempfile.mkdtemp(dir=DIRECTORY)
    is_good = True
    try:
        with concurrent.futures.ProcessPoolExecutor(max_workers=2) as workers:
            if not options.only_alterations:
                layout = options.layout or make("odd" if options.small else "equality", DIRECTORY)
                is_good = compare_mounts(layout, directory, workers)
            if not options.only_mounts:
                is_good = prove(directory, workers) and is_good
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
