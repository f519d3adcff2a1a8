"""How long `disk` takes to make each kind of a stored image, against its objects copied into one file and synced.

Each run has a new file system with the repository and the output. The page cache has the objects in both cases. The copy is `cat` of all objects of
the image, each once, then `sync` of the file; `disk` verifies them besides. A merge of 60,000 files and 6,000 whiteouts is measured as `disk --kind
fsmeta`, which reads the layers, merges them and writes metadata only.

  tools/bench/run disk [a] [b] [--runs N] [--check]

Prints the median, its ratio to that of the copy, and the peak memory; then the same of `pull --disk`. --check fails if a limit is exceeded. If BENCH_FS has reflinks (xfs, btrfs), an
image of large files is measured in addition, with a limit of its own: only what cannot be shared is read. The pull verified the rest.
The same pulls are measured beside microsandbox's `msb`, if it is to be had (peer.py).
Images of up to a million files are measured for the peak memory of their pulls, and for a time that no pull of them may exceed.
"""

import argparse
import hashlib
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import time

import peer
from disk import KIND, Scratch

COMMAND = os.environ["CFSOCI"]
RATIO_LIMIT, MEMORY_LIMIT, MERGE_LIMIT, SHARED_LIMIT = 1.2, 96, 1.0, 0.3
KINDS = ["single", "layered", "vmdk", "fsmeta", "flat"]
# Seconds for a pull that also makes and keeps a disk: what another program needs for its pull and a sync, which keeps the disk alone; for flat 0.6 of that.
PULL_LIMITS = {"image a": {"layered": 1.14, "flat": 0.6 * 2.27}, "image b": {"layered": 4.05, "flat": 0.6 * 6.82}}
FILES, WHITEOUTS = 60_000, 6_000
OBJECTS, IN_LINE, SIDE_BY_SIDE, LONG_NAMES, ATTRIBUTES, WAITING = 150_000, 600_000, 1_000_000, 400_000, 300_000, 400_000
LARGE_ATTRIBUTES = 50_000
# Seconds for a pull of so many files: time in proportion to their number is far below.
LONGEST = 60
# Each has a part of a block at its end, which is copied.
LARGE_FILES, LARGE_SIZE = 48, (8 << 20) + 1000


def timed(arguments, **options):
    """Seconds, and the peak memory of the process in MiB."""
    started = time.monotonic()
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, **options)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(arguments)}: status {status}")
    return time.monotonic() - started, usage.ru_maxrss / 1024


def pull(scratch, layout):
    repository = scratch.repository("sha256")
    subprocess.run([COMMAND, "-q", "pull", "oci:" + layout, "image", "--repo", repository], check=True, stdout=subprocess.DEVNULL)
    identifier = json.loads(subprocess.run(
        [COMMAND, "inspect", "image", "--repo", repository], check=True, capture_output=True).stdout)["imageIds"]["v1"]
    listed = subprocess.run([COMMAND, "image-objects", identifier, "--repo", repository], check=True, capture_output=True, text=True).stdout
    objects = [os.path.join(repository, "objects", name[:2], name[2:]) for name in (line.split()[0] for line in listed.splitlines())]
    subprocess.run(["sync", "-f", repository], check=True)
    return repository, objects


def remove(path):
    """Removes an output, and waits until the file system has freed it: the next measurement must not pay for that."""
    subprocess.run(["rm", "-r", path], check=True)
    subprocess.run(["sync", "-f", os.path.dirname(path)], check=True)


def copied(repository, objects):
    """Into one file, by programs that do nothing else."""
    output = os.path.join(os.path.dirname(repository), "copy")
    names = "\0".join(objects).encode()
    started = time.monotonic()
    subprocess.run(["bash", "-c", 'xargs -0 cat > "$1" && sync "$1"', "copy", output], input=names, check=True)
    seconds = time.monotonic() - started
    remove(output)
    return seconds


def measure(scratch, name, layout, runs, limit=RATIO_LIMIT):
    times, peaks = {"copy": []}, {}
    for run in range(runs + 1):
        repository, objects = pull(scratch, layout)
        # Brings the objects into memory.
        subprocess.run(["xargs", "-0", "cat"], input="\0".join(objects).encode(), stdout=subprocess.DEVNULL, check=True)
        found = {"copy": copied(repository, objects)}
        for kind in KINDS:
            output = os.path.join(os.path.dirname(repository), kind)
            found[kind], peak = timed([COMMAND, "disk", "image", "--kind", kind, "--output", output, "--repo", repository])
            peaks[kind] = max(peak, peaks.get(kind, 0))
            remove(output)
        if run > 0 or runs == 0:
            for kind, seconds in found.items():
                times.setdefault(kind, []).append(seconds)
    copy = statistics.median(times["copy"])
    print(f"{name}: {len(objects)} objects, {sum(map(os.path.getsize, objects)) / 1e6:.0f} MB, copied and synced in {copy:.3f} s")
    faults = []
    for kind in KINDS:
        median = statistics.median(times[kind])
        print(f"  {kind:8} {median:.3f} s, ratio {median / copy:.2f} (limit {limit}), peak {peaks[kind]:.0f} MiB (limit {MEMORY_LIMIT})")
        if median / copy > limit or peaks[kind] > MEMORY_LIMIT:
            faults.append(f"{name} {kind}")
    return faults


def measure_pull(scratch, name, layout, runs):
    """Pulls from a layout with `--disk`, without anything in the repository before."""
    faults = []
    for kind, limit in PULL_LIMITS[name].items():
        times, peaks = [], []
        for _ in range(max(1, runs)):
            repository = scratch.repository("sha256")
            seconds, peak = timed([COMMAND, "-q", "pull", "oci:" + layout, "image", "--repo", repository, "--disk", kind])
            times.append(seconds)
            peaks.append(peak)
        median = statistics.median(times)
        print(f"  pull --disk {kind:8} {median:.3f} s (limit {limit:.2f} s), peak {max(peaks):.0f} MiB (limit {MEMORY_LIMIT})")
        if median > limit or max(peaks) > MEMORY_LIMIT:
            faults.append(f"{name} pull --disk {kind}")
    return faults


def make_layout(path, layers):
    """Of layers, from bottom to top, that are lists of names, contents (text: the target of a link) and PAX records."""
    blobs = os.path.join(path, "blobs/sha256")
    os.makedirs(blobs, exist_ok=True)

    def blob(content):
        digest = hashlib.sha256(content).hexdigest()
        with open(os.path.join(blobs, digest), "wb") as file:
            file.write(content)
        return {"digest": "sha256:" + digest, "size": len(content)}

    def layer(entries):
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name, content, *records in entries:
                entry = tarfile.TarInfo(name)
                if records:
                    entry.pax_headers = records[0]
                if isinstance(content, str):
                    entry.type, entry.linkname = tarfile.SYMTYPE, content
                    tar.addfile(entry)
                    continue
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        return blob(archive.getvalue())

    layers = [layer(entries) for entries in layers]
    prefix = "application/vnd.oci.image."
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [entry["digest"] for entry in layers]}})
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": prefix + "manifest.v1+json",
        "config": dict(blob(config.encode()), mediaType=prefix + "config.v1+json"),
        "layers": [dict(entry, mediaType=prefix + "layer.v1.tar") for entry in layers]})
    with open(os.path.join(path, "oci-layout"), "w") as file:
        file.write('{"imageLayoutVersion":"1.0.0"}')
    with open(os.path.join(path, "index.json"), "w") as file:
        json.dump({"schemaVersion": 2, "manifests": [dict(blob(manifest.encode()), mediaType=prefix + "manifest.v1+json")]}, file)


def make_stack(path):
    """Files in the lower layer, and whiteouts for every tenth of them in the upper one."""
    names = [f"usr/d{number % 600}/f{number}" for number in range(FILES)]
    hidden = [os.path.join(os.path.dirname(name), ".wh." + os.path.basename(name)) for name in names[:: FILES // WHITEOUTS]]
    make_layout(path, [[(name, name.encode()) for name in names], [(name, b"") for name in hidden]])


def make_large_files(path):
    make_layout(path, [[(f"usr/f{number}", hashlib.shake_128(bytes([number])).digest(LARGE_SIZE)) for number in range(LARGE_FILES)]])


def make_small_files(path):
    make_layout(path, [[(f"usr/d{number % 150}/f{layer}-{number}", hashlib.shake_128(f"{layer} {number}".encode()).digest(3000 + number % 1000))
                        for number in range(FILES // 4)] for layer in range(4)])


def make_objects(path):
    """Contents that are just too long to be kept in line."""
    make_layout(path, [[(f"usr/d{number % 500}/f{layer}-{number}", f"{layer} {number} ".encode() + b"x" * 100)
                        for number in range(OBJECTS // 3)] for layer in range(3)])


def make_files_in_line(path):
    make_layout(path, [[(f"usr/d{number // 160}/f{layer}-{number}", f"{layer} {number}".encode()) for number in range(IN_LINE // 4)]
                       for layer in range(4)])


def make_one_directory(path):
    """Empty files, which take no blocks of a flat disk."""
    make_layout(path, [[(f"usr/d/f{layer}-{number}", b"") for number in range(SIDE_BY_SIDE // 2)] for layer in range(2)])


def make_long_names(path):
    make_layout(path, [[(f"usr/d/f{layer}-{number}".ljust(240, "x"), b"") for number in range(LONG_NAMES // 2)]
                       for layer in range(2)])


def make_attributes(path):
    """Each file has attributes that no other one has. An image of the OCI tree has both, one of the composefs tree the first."""
    make_layout(path, [[(f"usr/d{number // 160}/f{layer}-{number}", f"{layer} {number}".encode(), {
        "SCHILY.xattr.security.capability": f"{layer} {number:018}", "SCHILY.xattr.user.sum": f"{layer} {number:038}"})
        for number in range(ATTRIBUTES // 2)] for layer in range(2)])


def make_large_attributes(path):
    make_layout(path, [[(f"usr/d{number // 160}/f{layer}-{number}", f"{layer} {number}".encode(), {
        "SCHILY.xattr.security.capability": f"{layer} {number // 2:04998}"})
        for number in range(LARGE_ATTRIBUTES // 2)] for layer in range(2)])


def make_below_link(path):
    """The upper layer has a file below a link of the lower one, which it could still replace by a directory: all its entries have to wait."""
    make_layout(path, [[("usr/lib/a", b"a"), ("lib", "usr/lib")],
                       [("lib/b", b"b")] + [(f"usr/d{number // 300}/f{number}", f"{number}".encode()) for number in range(WAITING)]])


def made(scratch, make):
    """A layout that is made in a process of its own: those that this one starts begin with its peak memory."""
    layout = scratch.path()
    maker = os.fork()
    if maker == 0:
        make(layout)
        os._exit(0)
    if os.waitpid(maker, 0)[1] != 0:
        sys.exit("an image could not be made")
    return layout


def measure_sharing(scratch, runs):
    layout = made(scratch, make_large_files)
    return measure(scratch, "image of large files, with reflinks", layout, runs, SHARED_LIMIT)


def measure_memory(scratch):
    """The peaks of pulls of images with many files."""
    faults = []
    images = [
        (f"{FILES} small contents", make_small_files), (f"{OBJECTS} objects", make_objects), (f"{IN_LINE} files in line", make_files_in_line),
        (f"{SIDE_BY_SIDE} files in one directory", make_one_directory), (f"{LONG_NAMES} long names in one directory", make_long_names),
        (f"{ATTRIBUTES} files with attributes of their own", make_attributes),
        (f"{LARGE_ATTRIBUTES} files with large attributes", make_large_attributes), (f"{WAITING} files that wait", make_below_link),
    ]
    for name, make in images:
        layout = made(scratch, make)
        for kind in [None, "layered", "flat"]:
            repository = scratch.repository("sha512")
            disk = ["--disk", kind] if kind else []
            seconds, peak = timed([COMMAND, "-q", "pull", "oci:" + layout, "image", "--repo", repository, *disk])
            print(f"{' '.join(['pull', *disk])} of {name}: {seconds:.2f} s, peak {peak:.0f} MiB (limit {MEMORY_LIMIT})")
            if peak > MEMORY_LIMIT or seconds > LONGEST:
                faults.append(f"{' '.join(['pull', *disk])} of {name}")
        subprocess.run(["rm", "-r", layout], check=True)
    return faults


def measure_merge(scratch, runs):
    layout = made(scratch, make_stack)
    repository, _ = pull(scratch, layout)
    times = []
    for _ in range(max(1, runs)):
        output = os.path.join(os.path.dirname(repository), "fsmeta")
        seconds, _ = timed([COMMAND, "disk", "image", "--kind", "fsmeta", "--output", output, "--repo", repository])
        times.append(seconds)
    median = statistics.median(times)
    print(f"merge of {FILES} files and {WHITEOUTS} whiteouts: {median:.3f} s (limit {MERGE_LIMIT:.0f} s)")
    return ["merge"] if median > MERGE_LIMIT else []


def main():
    parser = argparse.ArgumentParser(prog="tools/bench/run disk")
    parser.add_argument("images", nargs="*", choices=["a", "b", []])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    directory = os.environ["BENCH_DIR"]
    os.makedirs(directory, exist_ok=True)
    scratch = Scratch(directory, COMMAND)
    faults = []
    try:
        for name in arguments.images or ["a", "b"]:
            layout = os.path.join(directory, "image-" + name)
            if not os.path.exists(os.path.join(layout, "index.json")):
                images = os.path.join(os.path.dirname(os.path.abspath(__file__)), "images.py")
                subprocess.run([sys.executable, images, name, layout], check=True)
            faults += measure(scratch, "image " + name, layout, arguments.runs)
            faults += measure_pull(scratch, "image " + name, layout, arguments.runs)
            faults += peer.measure(scratch, COMMAND, name, layout, arguments.runs)
        faults += measure_merge(scratch, arguments.runs)
        faults += measure_memory(scratch)
        if KIND in ("xfs", "btrfs"):
            faults += measure_sharing(scratch, arguments.runs)
    finally:
        scratch.remove()
    if faults and arguments.check:
        sys.exit("above a limit: " + ", ".join(faults))


main()
