"""OCI layouts for the benchmarks, made from this machine's files.

An image is created once and kept in a folder named after its recipe. The same machine gives the same image.
"""

import hashlib
import json
import os
import stat
import subprocess
import sys
import tarfile

import odd

MIB = 1 << 20


def candidates():
    """Regular files and symlinks of the system: path, size (None for a symlink)."""
    for top in ("/usr", "/opt", "/var/lib/dpkg", "/etc"):
        for directory, subdirectories, names in os.walk(top):
            subdirectories[:] = [name for name in subdirectories if not name.startswith(".build")]
            for name in names:
                path = os.path.join(directory, name)
                try:
                    status = os.lstat(path)
                    if stat.S_ISREG(status.st_mode) and status.st_size <= 24 * MIB and os.access(path, os.R_OK):
                        yield path, status.st_size
                    elif stat.S_ISLNK(status.st_mode):
                        yield path, None
                except OSError:
                    continue


def choose(entries_wanted, bytes_wanted):
    """Paths from the whole system with about this many entries and bytes in total, and the number of missing entries."""
    links, small, large = [], [], []
    mean = bytes_wanted / entries_wanted
    for path, size in candidates():
        if size is None:
            links.append(path)
        else:
            (small if size < mean else large).append((path, size))

    def scattered(path):
        return hashlib.sha256(os.fsencode(path)).digest()

    links.sort(key=scattered)
    small.sort(key=lambda item: scattered(item[0]))
    large.sort(key=lambda item: scattered(item[0]))
    chosen = {path: 0 for path in links[: entries_wanted // 20]}
    directories, total = {"/"}, 0

    def count_directories(path):
        parent = os.path.dirname(path)
        while parent not in directories:
            directories.add(parent)
            parent = os.path.dirname(parent)

    for path in chosen:
        count_directories(path)
    while len(chosen) + len(directories) < entries_wanted and (small or large):
        done = (len(chosen) + len(directories)) / entries_wanted
        queue = large if large and (total < bytes_wanted * done or not small) else small
        path, size = queue.pop()
        chosen[path] = size
        total += size
        count_directories(path)
    return chosen, max(0, entries_wanted - len(chosen) - len(directories))


def blob(layout, write):
    """Writes a blob through `write(stream)`; returns digest and size."""
    path = os.path.join(layout, "blob.tmp")
    with open(path, "wb") as out:
        write(out)
    digest = subprocess.run(["openssl", "dgst", "-sha256", "-r", path], check=True, capture_output=True).stdout.split()[0].decode()
    os.rename(path, os.path.join(layout, "blobs", "sha256", digest))
    return "sha256:" + digest, os.path.getsize(os.path.join(layout, "blobs", "sha256", digest))


def gzip_layer(layout, fill, command):
    """A layer: `fill(stream)` writes the tar, `command` compresses it. Returns descriptor and diff ID."""
    hasher = hashlib.sha256()
    counted = 0

    def write(out):
        nonlocal counted
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out) as process:

            class Tee:
                def write(self, data):
                    nonlocal counted
                    hasher.update(data)
                    counted += len(data)
                    return process.stdin.write(data)

            fill(Tee())
            process.stdin.close()
            if process.wait() != 0:
                raise RuntimeError("the compressor failed")

    digest, size = blob(layout, write)
    descriptor = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": size}
    return descriptor, "sha256:" + hasher.hexdigest(), counted


def finish(layout, layers, diff_ids):
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    digest, size = blob(layout, lambda out: out.write(json.dumps(config).encode()))
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": size},
        "layers": layers,
    }
    digest, size = blob(layout, lambda out: out.write(json.dumps(manifest).encode()))
    root = {"mediaType": manifest["mediaType"], "digest": digest, "size": size}
    root["annotations"] = {"org.opencontainers.image.ref.name": "bench"}
    with open(os.path.join(layout, "index.json"), "w") as out:
        json.dump({"schemaVersion": 2, "manifests": [root]}, out)
    with open(os.path.join(layout, "oci-layout"), "w") as out:
        json.dump({"imageLayoutVersion": "1.0.0"}, out)


def begin(layout):
    os.makedirs(os.path.join(layout, "blobs", "sha256"))


def whole_seconds(info):
    info.mtime = int(info.mtime)  # as most builders write it: no extension header per entry
    return info


def tar_of(stream, paths, seen):
    """Writes the paths and the directories above them that no earlier layer has."""
    entries = 0
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT, bufsize=MIB) as archive:

        def directories(path):
            nonlocal entries
            parent = os.path.dirname(path)
            if parent in seen or parent == "/":
                return
            directories(parent)
            seen.add(parent)
            info = tarfile.TarInfo(parent.lstrip("/"))
            info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, int(os.stat(parent).st_mtime)
            archive.addfile(info)
            entries += 1

        for path in paths:
            directories(path)
            try:
                archive.add(path, recursive=False, filter=whole_seconds)  # hard links among the selected files stay hard links
                entries += 1
            except FileNotFoundError:
                continue
    return entries


def system_image(layout, entries, size, shares, command=("gzip", "-6", "-n"), more=None):
    """An image of `entries` entries and `size` bytes, whose layers have these shares of the bytes.

    `more`, told how many entries this machine is short of, gives the layers above them.
    """
    begin(layout)
    chosen, lacking = choose(entries, size)
    paths = sorted(chosen, key=os.fsencode)
    total = sum(chosen.values())
    groups, taken, limit = [[] for _ in shares], 0, shares[0]
    index = 0
    for path in paths:
        if taken > limit * total and index + 1 < len(shares):
            index += 1
            limit += shares[index]
        groups[index].append(path)
        taken += chosen[path]
    seen = {"/"}
    writers = [lambda stream, group=group: tar_of(stream, group, seen) for group in groups]
    return written_image(layout, writers + (more(lacking) if more else []), command)


def written_image(layout, writers, command):
    """An image of layers, each written by a function that returns how many entries it has."""
    layers, diff_ids, bytes_out, count = [], [], 0, 0
    for writer in writers:
        found = 0

        def fill(stream):
            nonlocal found
            found = writer(stream)

        descriptor, diff_id, length = gzip_layer(layout, fill, command)
        layers.append(descriptor)
        diff_ids.append(diff_id)
        bytes_out += length
        count += found
    finish(layout, layers, diff_ids)
    return {"entries": count, "uncompressed": bytes_out, "compressed": sum(layer["size"] for layer in layers), "layers": len(layers)}


def one_file_image(layout, size):
    """An image of one layer with one file of `size` bytes: 256 MiB of this machine's programs, again and again, numbered."""
    begin(layout)
    pieces, length = [], 0
    for path, file_size in sorted(candidates(), key=lambda item: (-(item[1] or 0), item[0])):
        if not file_size or length >= 256 * MIB:
            break
        with open(path, "rb") as source:
            pieces.append(source.read())
        length += file_size
    block = b"".join(pieces)[: 256 * MIB]
    pieces.clear()

    class Repeated:
        def __init__(self):
            self.position = 0

        def read(self, count):
            count = min(count, size - self.position, len(block) - self.position % len(block))
            start = self.position % len(block)
            data = block[start : start + count]
            if start == 0 and count >= 8:
                data = self.position.to_bytes(8, "little") + data[8:]
            self.position += count
            return data

    def fill(stream):
        with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT, bufsize=MIB) as archive:
            for name in ("usr", "usr/share"):
                info = tarfile.TarInfo(name)
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
            info = tarfile.TarInfo("usr/share/large")
            info.size = size
            archive.addfile(info, Repeated())

    descriptor, diff_id, length = gzip_layer(layout, fill, ["igzip", "-1", "-c"])
    finish(layout, [descriptor], [diff_id])
    return {"entries": 3, "uncompressed": length, "compressed": descriptor["size"], "layers": 1}


def odd_image(layout, altered=None):
    begin(layout)
    return written_image(layout, odd.layers(altered), FAST)


FAST = ("igzip", "-1", "-c")
IMAGE_B = (30_000, 385 * MIB, [0.45, 0.30, 0.15, 0.10])
RECIPES = {
    "a": lambda layout: system_image(layout, 5_000, 180 * MIB, [1.0]),
    "b": lambda layout: system_image(layout, *IMAGE_B),
    # The same entries, compressed faster, and those of odd.py; the same number on a machine with few files.
    "equality": lambda layout: system_image(layout, *IMAGE_B, command=FAST, more=lambda lacking: odd.layers(filling=lacking)),
    "odd": odd_image,
    "memory": lambda layout: one_file_image(layout, 3 << 30),
}


def main():
    name, directory = sys.argv[1:]
    partial = directory + ".partial"
    subprocess.run(["rm", "-rf", partial, directory], check=True)
    recipe, _, altered = name.partition(":")
    facts = RECIPES[recipe](partial, altered) if altered else RECIPES[recipe](partial)
    with open(os.path.join(partial, "facts.json"), "w") as out:
        json.dump(facts, out)
    os.rename(partial, directory)


if __name__ == "__main__":
    main()
