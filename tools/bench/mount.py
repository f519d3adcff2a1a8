"""Measures a mounted image, served with FUSE, against the kernel's mount of the same image.

Both are mounted once, everything is read once so that all caches are warm, and then they are measured alternately. `tar` to /dev/null reads
every inode but opens no file, because GNU tar recognises the device; through a pipe it reads everything. Reads of 4 KiB are at random offsets
of random files that stay open; another figure opens the file for each read. `lazy` is FUSE with --lazy-open. `unprivileged` is FUSE in a user
namespace, in which the kernel does not read objects directly. The last line is one sequential read of a file of 256 MiB that neither file
system has read before.
"""

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

KIB = 1 << 10
MIB = 1 << 20
WALK_LIMIT, READ_LIMIT = 2.0, 1.5
WALK, READ = "tar cf /dev/null", "random 4 KiB read"


def walk(path):
    subprocess.run(["tar", "cf", "/dev/null", "-C", path, "."], check=True)


def read_all(path):
    subprocess.run(["bash", "-c", 'set -o pipefail; tar cf - -C "$1" . | cat > /dev/null', "read", path], check=True)


def large_files(path, least):
    found = []
    for directory, _, names in os.walk(path):
        for name in names:
            full = os.path.join(directory, name)
            status = os.lstat(full)
            if os.path.isfile(full) and not os.path.islink(full) and status.st_size >= least:
                found.append((os.path.relpath(full, path), status.st_size))
    return sorted(found)


def read_randomly(path, plan):
    files = {name: os.open(os.path.join(path, name), os.O_RDONLY) for name in {name for name, _ in plan}}
    reads = [(files[name], offset) for name, offset in plan]
    buffer = [bytearray(4 * KIB)]
    start = time.monotonic()
    for descriptor, offset in reads:
        os.preadv(descriptor, buffer, offset)
    seconds = time.monotonic() - start
    for descriptor in files.values():
        os.close(descriptor)
    return seconds


def open_and_read(path, plan):
    paths = [(os.path.join(path, name), offset) for name, offset in plan]
    buffer = [bytearray(4 * KIB)]
    start = time.monotonic()
    for name, offset in paths:
        descriptor = os.open(name, os.O_RDONLY)
        os.preadv(descriptor, buffer, offset)
        os.close(descriptor)
    return time.monotonic() - start


def timed(function, *arguments):
    start = time.monotonic()
    result = function(*arguments)
    return result if result is not None else time.monotonic() - start


class Mounts:
    """Mounts the same image in all compared ways while the block runs."""

    def __init__(self, command, repository, image, directory):
        self.command, self.repository, self.image = command, repository, image
        self.directory = tempfile.mkdtemp(dir=directory)
        self.paths, self.holder = {}, None

    def __enter__(self):
        try:
            self.mount()
        except BaseException:
            self.__exit__()
            raise
        return self.paths

    def mount(self):
        for name, options in (("kernel", []), ("fuse", ["--fuse"]), ("lazy", ["--fuse", "--lazy-open"])):
            path = self.path(name)
            subprocess.run(
                [self.command, "--repo", self.repository, "--quiet", "mount", self.image, path, *options], check=True
            )
            self.paths[name] = path
        # The mount is accessed from outside through a process that stays in the namespace.
        path = self.path("unprivileged")
        script = '"$1" --repo "$2" --quiet mount --fuse "$3" "$4" && echo ready && exec sleep infinity'
        self.holder = subprocess.Popen(
            ["unshare", "-Urm", "bash", "-c", script, "hold", self.command, self.repository, self.image, path],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        if self.holder.stdout.readline() == b"ready\n":
            self.paths["unprivileged"] = f"/proc/{self.holder.pid}/root{path}"

    def path(self, name):
        path = os.path.join(self.directory, name)
        os.mkdir(path)
        return path

    def __exit__(self, *_):
        for name in ("kernel", "fuse", "lazy"):
            if name in self.paths:
                subprocess.run([self.command, "umount", "--lazy", self.paths[name]], check=False)
        # The namespace ends with its last process, and the server ends when its mount does.
        if self.holder:
            if "unprivileged" in self.paths:
                inside = os.path.join(self.directory, "unprivileged")
                enter = ["nsenter", "--user", "--mount", "--preserve-credentials", "--target", str(self.holder.pid)]
                subprocess.run([*enter, self.command, "umount", "--lazy", inside], check=False)
            self.holder.kill()
            self.holder.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


def compare(name, paths, runs, function, *arguments):
    results = {key: [] for key in paths}
    for _ in range(runs):
        for key, path in paths.items():
            results[key].append(timed(function, path, *arguments))
    return name, {key: statistics.median(values) for key, values in results.items()}


def show(row, unit, verdict=None):
    name, medians = row
    scale, suffix = unit
    cells = []
    for key, value in medians.items():
        text = f"{key} {value * scale:.2f} {suffix}"
        if key != "kernel":
            ratio = f"{value / medians['kernel']:.2f}x"
            text += f" {verdict(ratio, value / medians['kernel']) if verdict and key == 'fuse' else ratio}"
        cells.append(text)
    print(f"  {name:28} " + "; ".join(cells))


def streaming(command, directory):
    """A sequential read of a large file, each time through a new mount."""
    tree = tempfile.mkdtemp(dir=directory)
    repository, path = os.path.join(tree, "repo"), os.path.join(tree, "tree")
    os.mkdir(path)
    with open(os.path.join(path, "large"), "wb") as out:
        for _ in range(256):
            out.write(random.randbytes(MIB))
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([command, "init", repository, "--insecure"], **quiet)
    subprocess.run([command, "--repo", repository, "create-image", path, "large"], **quiet)
    results = {}
    try:
        for _ in range(3):
            with Mounts(command, repository, "large", tree) as paths:
                for key, mounted in paths.items():
                    # Opened and verified before, but not read.
                    with open(os.path.join(mounted, "large"), "rb", buffering=0) as source:
                        buffer = bytearray(MIB)
                        start = time.monotonic()
                        while source.readinto(buffer):
                            pass
                        results.setdefault(key, []).append(time.monotonic() - start)
    finally:
        shutil.rmtree(tree, ignore_errors=True)
    return {key: statistics.median(values) for key, values in results.items()}


SECONDS, MICROSECONDS = (1, "s"), (1e6, "µs")


def figures(command, layout, directory, runs):
    """Measures everything. Returns rows of an operation, the median of each mount in seconds, and the unit for printing."""
    repository = os.path.join(directory, f"mount-{os.getpid()}")
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([command, "init", repository, "--algorithm", "fsverity-sha256-12", "--insecure"], **quiet)
    rows = []
    try:
        subprocess.run([command, "--repo", repository, "pull", f"oci:{layout}:bench", "bench"], **quiet)
        with Mounts(command, repository, "bench", directory) as paths:
            for path in paths.values():
                read_all(path)
            files = large_files(paths["kernel"], 64 * KIB)
            chance = random.Random(4711)

            def plan(count):
                return [(name, chance.randrange(size // 4096) * 4096) for name, size in chance.choices(files, k=count)]

            def add(name, unit, function, *arguments, count=1):
                _, medians = compare(name, paths, runs, function, *arguments)
                rows.append((name, {key: value / count for key, value in medians.items()}, unit))

            add(WALK, SECONDS, walk)
            add("tar cf - | cat > /dev/null", SECONDS, read_all)
            add(READ, MICROSECONDS, read_randomly, plan(100_000), count=100_000)
            add("open, 4 KiB read, close", MICROSECONDS, open_and_read, plan(20_000), count=20_000)
    finally:
        shutil.rmtree(repository, ignore_errors=True)
    rows.append(("256 MiB file, first read", streaming(command, directory), SECONDS))
    return rows


def measure(command, layout, facts, directory, runs, verdict):
    """Prints everything. `verdict(what, value, limit, text)` records missed limits."""
    limits = {WALK: ("mount walk", WALK_LIMIT), READ: ("mount random reads", READ_LIMIT)}
    print(f"mount: image b, {facts['entries']} entries, {facts['uncompressed'] / 1e6:.0f} MB; medians of {runs}, caches warm")
    for name, medians, unit in figures(command, layout, directory, runs):
        limit = limits.get(name)
        show((name, medians), unit, limit and (lambda text, ratio, limit=limit: verdict(limit[0], ratio, limit[1], text)))
