"""Peak memory and time of pulls of small hostile images.

No image below 50 MB may need more than 512 MiB of memory or 60 s. An image may be refused: then the exit status is not 0, an error names the
exceeded limit, and the store is unchanged. Images are created for each run; all are layouts with gzip or zstd layers.

    hostile.py [NAME…] [--check]     all, or the named ones; --check: exit status 1 if a limit is exceeded
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time

CFSOCI = os.environ["CFSOCI"]
PLACE = os.path.join(os.environ.get("BENCH_DIR", "/var/tmp"), "hostile")
MEMORY, SECONDS, SIZE = 512 << 20, 60, 50_000_000


def octal(value, width):
    return b"%0*o\0" % (width - 1, value)


def header(name, kind=b"0", size=0, link=b"", mode=0o644):
    block = bytearray(512)
    block[0:100] = name[:100].ljust(100, b"\0")
    block[100:108] = octal(mode, 8)
    block[108:116] = block[116:124] = octal(0, 8)
    block[124:136] = octal(size, 12)
    block[136:148] = octal(1_700_000_000, 12)
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[157:257] = link[:100].ljust(100, b"\0")
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data):
    return data + bytes(-len(data) % 512)


def pax(*records):
    data = b""
    for key, value in records:
        body = b" " + key + b"=" + value + b"\n"
        length = len(body) + 1
        while len(str(length)) + len(body) != length:
            length = len(str(length)) + len(body)
        data += str(length).encode() + body
    return header(b"x", b"x", len(data)) + padded(data)


def symlink(name, target):
    return pax((b"linkpath", target)) + header(name, b"2") if len(target) > 100 else header(name, b"2", link=target)


USR = header(b"usr/", b"5", mode=0o755)


def long_symlinks(unique):
    """One million symbolic links with targets of 4,000 bytes."""
    yield USR
    fill = b"x" * 3990
    for index in range(1_000_000):
        yield symlink(b"usr/%d" % index, (b"%010d" % index if unique else b"y" * 10) + fill)


def dropped_attributes(name):
    """15,000 files, each with one unique extended attribute of 60,000 bytes."""
    yield USR
    for index in range(15_000):
        value = b"%010d" % index + b"x" * 59_990
        yield pax((b"SCHILY.xattr." + name, value)) + header(b"usr/%d" % index)


def through_links():
    """100,000 files whose paths contain 40 symbolic links."""
    yield USR
    yield header(b"end/", b"5", mode=0o755)
    for index in range(40):
        yield symlink(b"l%d" % index, b"end" if index == 0 else b"l%d" % (index - 1))
    for index in range(100_000):
        yield header(b"l39/%d" % index)


def through_other_links():
    """The same, each file through its own link, and these through links with a thousand names."""
    yield USR
    yield header(b"end/", b"5", mode=0o755)
    yield symlink(b"w", b"./" * 950 + b"end")
    for index in range(100_000):
        yield symlink(b"l%d" % index, b"end/.." + b"/end/.." * 400 + b"/end")
        yield header(b"l%d/x" % index)


def deep_paths():
    """A million files, two thousand directories deep, alternating between two directories."""
    yield USR
    for index in range(1_000_000):
        yield pax((b"path", (b"a/" if index % 2 else b"b/") * 1990 + b"%d" % index)) + header(b"x")


def hidden_names():
    yield USR
    yield header(b"d/", b"5", mode=0o755)


def whiteouts():
    """A million whiteouts with long paths that hide nothing."""
    yield USR
    for index in range(1_000_000):
        yield pax((b"path", b"d/" + b"y" * 200 + b"/" + b"z" * 200 + b"/.wh.%d" % index)) + header(b"x")


def empty_files():
    """Four million empty files."""
    yield USR
    for index in range(3_999_990):
        yield header(b"usr/%d" % index)


def second_layer_symlinks():
    yield USR
    yield header(b"l", b"2", link=b"usr")


def waiting_symlinks():
    """Entries below a lower layer's link are deferred to the end of the layer."""
    yield USR
    fill = b"x" * 3990
    for index in range(1_000_000):
        yield symlink(b"l/%d" % index, b"%010d" % index + fill)


def distinct_files():
    """600,000 different files of 65 bytes, each an object."""
    yield USR
    for index in range(600_000):
        yield header(b"usr/%d" % index, size=65) + padded(b"%065d" % index)


def sparse_files():
    """Four thousand sparse files of 15 MiB without data."""
    yield USR
    for index in range(4000):
        yield pax((b"GNU.sparse.size", b"%d" % (15 << 20)), (b"GNU.sparse.map", b"")) + header(b"usr/%d" % index)


def one_sparse_file():
    """A file of 63 GiB without data."""
    yield USR
    size = b"%d" % (63 << 30)
    yield pax((b"GNU.sparse.size", size), (b"GNU.sparse.map", size + b",0")) + header(b"usr/hole")


IMAGES = {
    "symlinks": [lambda: long_symlinks(False)],
    "unique-symlinks": [lambda: long_symlinks(True)],
    "dropped-xattrs": [lambda: dropped_attributes(b"user.x")],
    "kept-xattrs": [lambda: dropped_attributes(b"security.capability")],
    "links": [through_links],
    "other-links": [through_other_links],
    "deep-paths": [deep_paths],
    "whiteouts": [hidden_names, whiteouts],
    "empty-files": [empty_files],
    "waiting": [second_layer_symlinks, waiting_symlinks],
    "files": [distinct_files],
    "sparse": [sparse_files],
    "one-sparse": [one_sparse_file],
}


def digest_of(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make(name, layers):
    """A layout with one image, whose layers have the strongest zstd compression."""
    folder = os.path.join(PLACE, name)
    blobs = folder + "/blobs/sha256"
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(blobs)
    found = []
    for layer in layers:
        path = folder + "/layer"
        packer = subprocess.Popen(["zstd", "-q", "-3", "--long=23", "-T0", "-o", path], stdin=subprocess.PIPE)
        diff = hashlib.sha256()
        waiting = bytearray()

        def write():
            diff.update(waiting)
            packer.stdin.write(waiting)
            waiting.clear()

        for part in layer():
            waiting += part
            if len(waiting) > 1 << 20:
                write()
        waiting += bytes(1024)
        write()
        packer.stdin.close()
        if packer.wait():
            sys.exit("zstd failed")
        digest = digest_of(path)
        size = os.path.getsize(path)
        os.rename(path, f"{blobs}/{digest}")
        found.append((digest, size, diff.hexdigest()))

    def document(value):
        data = json.dumps(value).encode()
        digest = hashlib.sha256(data).hexdigest()
        with open(f"{blobs}/{digest}", "wb") as file:
            file.write(data)
        return {"digest": "sha256:" + digest, "size": len(data)}

    kind = "application/vnd.oci.image."
    config = document({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ["sha256:" + f[2] for f in found]}})
    manifest = document({
        "schemaVersion": 2, "mediaType": kind + "manifest.v1+json", "config": dict(config, mediaType=kind + "config.v1+json"),
        "layers": [{"mediaType": kind + "layer.v1.tar+zstd", "digest": "sha256:" + f[0], "size": f[1]} for f in found]})
    entry = dict(manifest, mediaType=kind + "manifest.v1+json", annotations={"org.opencontainers.image.ref.name": "t"})
    with open(folder + "/index.json", "w") as file:
        json.dump({"schemaVersion": 2, "manifests": [entry]}, file)
    with open(folder + "/oci-layout", "w") as file:
        json.dump({"imageLayoutVersion": "1.0.0"}, file)
    return folder, sum(f[1] for f in found)


def main():
    names = [a for a in sys.argv[1:] if not a.startswith("-")] or list(IMAGES)
    failed = False
    print(f"{'image':16} {'size':>10} {'memory':>9} {'time':>8}  result", flush=True)
    for name in names:
        folder, size = make(name, IMAGES[name])
        repository = os.path.join(PLACE, "repository")
        shutil.rmtree(repository, ignore_errors=True)
        subprocess.run([CFSOCI, "-q", "init", "--repo", repository, "--insecure"], check=True, stdout=subprocess.DEVNULL)
        start = time.monotonic()
        process = subprocess.Popen(
            [CFSOCI, "-q", "pull", "--repo", repository, f"oci:{folder}:t", "t"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        message = process.stderr.read().decode(errors="replace").strip()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - start
        memory = usage.ru_maxrss << 10
        code = os.waitstatus_to_exitcode(status)
        bad = size < SIZE and (memory > MEMORY or seconds > SECONDS) or code < 0
        failed |= bad
        note = "pulled" if code == 0 else f"exit {code}: {message[:150]}"
        print(f"{name:16} {size / 1e6:7.1f} MB {memory >> 20:5} MiB {seconds:6.1f} s  {'TOO MUCH: ' if bad else ''}{note}", flush=True)
        shutil.rmtree(folder)
        shutil.rmtree(repository)
    sys.exit(1 if failed and "--check" in sys.argv else 0)


main()
