#!/usr/bin/env python3
"""How long a pull takes, in CPU, memory and time, against the floor: what any store that verifies and keeps must do.

The floor of an image, all layers at once, each: `igzip -dc BLOB | tee FILE | openssl dgst -sha256` beside
`openssl dgst -sha256 BLOB`; when all are done, `sync -f`. Pull and floor alternate; the page cache is warm; every run has a
fresh repository; nothing is deleted before the end (a file system that has just deleted much is slow to create); everything is
synced before each run. Figures are medians.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

import mount

MIB = 1 << 20
HERE = os.path.dirname(os.path.abspath(__file__))
DIRECTORY = os.environ["BENCH_DIR"]
COMMAND = os.environ["CFSOCI"]
ALGORITHMS = {"sha256": "fsverity-sha256-12", "sha512": "fsverity-sha512-12"}

# The limits that the project holds itself to: wall clock against the floor with sha256, peak memory, start-up, size.
WALL_LIMIT = {"a": 1.5, "b": 2.0}
MEMORY_LIMIT = 96 * MIB
STARTUP_LIMIT = 0.010
SIZE_LIMIT = 25_000_000

FLOOR = """
set -e
out=$1; shift
mkdir "$out"
for blob in "$@"; do
    { igzip -dc "$blob" | tee "$out/${blob##*/}" | openssl dgst -sha256; } >/dev/null &
    openssl dgst -sha256 "$blob" >/dev/null &
done
wait
sync -f "$out"
"""

missed = []


def verdict(what, value, limit, text):
    if value <= limit:
        return f"{text} (limit met)"
    missed.append(what)
    return f"{text} (LIMIT MISSED)"


def image(name):
    """The layout of an image, made when it is missing."""
    directory = os.path.join(DIRECTORY, "image-" + name)
    if not os.path.exists(os.path.join(directory, "facts.json")):
        print(f"making image {name} …", file=sys.stderr)
        subprocess.run([sys.executable, os.path.join(HERE, "images.py"), name, directory], check=True)
    with open(os.path.join(directory, "facts.json")) as source:
        return directory, json.load(source)


def layer_blobs(layout):
    def document(path):
        with open(os.path.join(layout, path)) as source:
            return json.load(source)

    def path(digest):
        return "blobs/" + digest.replace(":", "/")

    manifest = document(path(document("index.json")["manifests"][0]["digest"]))
    return [os.path.join(layout, path(layer["digest"])) for layer in manifest["layers"]]


def warm(paths):
    for path in paths:
        with open(path, "rb") as source:
            while source.read(8 * MIB):
                pass


def run(arguments, **options):
    """Runs a command: wall seconds, CPU seconds (its children included), peak resident bytes of its largest process, stderr."""
    os.sync()
    errors, peak = os.path.join(DIRECTORY, "stderr.txt"), os.path.join(DIRECTORY, "peak.txt")
    # A process starts with the peak of the one that forked it, so a small one must: this interpreter would hide the truth.
    arguments = ["/usr/bin/time", "--quiet", "--format", "%M", "--output", peak, *arguments]
    with open(errors, "wb") as sink:
        start = time.monotonic()
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=sink, **options)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    with open(errors, errors="replace") as source:
        text = source.read()
    if process.returncode != 0:
        sys.exit(f"{' '.join(arguments[6:])} ended with status {process.returncode}:\n{text}")
    with open(peak) as source:
        kibibytes = int(source.read())
    return wall, usage.ru_utime + usage.ru_stime, kibibytes * 1024, text


class Scratch:
    """A fresh path a run; all of them are removed at the end."""

    def __init__(self):
        self.directory = os.path.join(DIRECTORY, f"runs-{os.getpid()}")
        os.makedirs(self.directory)
        self.count = 0

    def path(self):
        self.count += 1
        return os.path.join(self.directory, str(self.count))

    def repository(self, algorithm):
        path = self.path()
        subprocess.run(
            [COMMAND, "init", path, "--algorithm", ALGORITHMS[algorithm], "--insecure"],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return path

    def remove(self):
        shutil.rmtree(self.directory, ignore_errors=True)


def pull(scratch, layout, algorithm, *options):
    repository = scratch.repository(algorithm)
    return run([COMMAND, "--repo", repository, "pull", f"oci:{layout}:bench", *options])


def profile_of(text):
    lines = [line.strip() for line in text.splitlines() if line.startswith("profile")]
    return lines[-1] if lines else "profile  none: the command printed no line 'profile'"


def compare(name, runs):
    layout, facts = image(name)
    blobs = layer_blobs(layout)
    warm(blobs)
    print(
        f"image {name}: {facts['layers']} gzip layer(s), {facts['entries']} entries, "
        f"{facts['uncompressed'] / 1e6:.0f} MB ({facts['compressed'] / 1e6:.0f} MB compressed)"
    )
    scratch = Scratch()
    floors, pulls = [], {algorithm: [] for algorithm in ALGORITHMS}
    try:
        for _ in range(runs):
            floors.append(run(["bash", "-c", FLOOR, "floor", scratch.path(), *blobs]))
            for algorithm, results in pulls.items():
                results.append(pull(scratch, layout, algorithm))

        def medians(results):
            return [statistics.median(result[index] for result in results) for index in range(3)]

        floor_wall, floor_cpu, _ = medians(floors)
        print(f"  {'':8} {'wall':>8} {'CPU':>8} {'peak':>10}   {'wall/floor':>10} {'CPU/floor':>10}")
        print(f"  {'floor':8} {floor_wall:7.2f}s {floor_cpu:7.2f}s")
        for algorithm, results in pulls.items():
            wall, cpu, memory = medians(results)
            ratio = wall / floor_wall
            text = f"{ratio:9.2f}x {cpu / floor_cpu:9.2f}x"
            if algorithm == "sha256":
                text = verdict(f"{name} wall", ratio, WALL_LIMIT[name], text)
            peak = max(result[2] for result in results)
            print(f"  {algorithm:8} {wall:7.2f}s {cpu:7.2f}s {memory / MIB:6.1f} MiB   {text}")
            if peak > MEMORY_LIMIT:
                missed.append(f"{name} {algorithm} memory")
                print(f"  {'':8} peak memory of a run {peak / MIB:.1f} MiB (LIMIT MISSED: {MEMORY_LIMIT // MIB} MiB)")
        print(f"  walls    floor {spread(floors)}; " + "; ".join(f"{key} {spread(value)}" for key, value in pulls.items()))
        for algorithm in ALGORITHMS:
            print(f"  {algorithm:8} {profile_of(pull(scratch, layout, algorithm, '--verbose')[3])}")
    finally:
        scratch.remove()


def spread(results):
    return " ".join(f"{result[0]:.2f}" for result in results)


def memory():
    if shutil.disk_usage(DIRECTORY).free < 12 << 30:
        print("memory: left out, it takes 12 GiB of free space in", DIRECTORY)
        return
    layout, facts = image("memory")
    scratch = Scratch()
    try:
        wall, cpu, peak, _ = pull(scratch, layout, "sha256")
        text = verdict("3 GiB memory", peak, MEMORY_LIMIT, f"peak {peak / MIB:.1f} MiB")
        print(f"memory: one file of 3 GiB ({facts['compressed'] / 1e6:.0f} MB compressed): {text}, wall {wall:.1f}s, CPU {cpu:.1f}s")
    finally:
        scratch.remove()


def mounts(runs):
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        print("mount: left out, it takes root and FUSE")
        return
    layout, facts = image("b")
    mount.measure(COMMAND, layout, facts, DIRECTORY, runs, verdict)


def startup():
    def median(arguments):
        times = []
        with open(os.devnull, "wb") as sink:
            for _ in range(200):
                start = time.monotonic()
                process = os.posix_spawn(
                    arguments[0], arguments, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, sink.fileno(), 1)]
                )
                os.waitpid(process, 0)
                times.append(time.monotonic() - start)
        return statistics.median(times)

    seconds, nothing = median([COMMAND, "--version"]), median([shutil.which("true"), "--version"])
    text = verdict("start-up", seconds, STARTUP_LIMIT, f"{seconds * 1e3:.1f} ms")
    print(f"start-up: cfsoci --version {text}; true --version {nothing * 1e3:.1f} ms")
    stripped = os.path.join(DIRECTORY, "cfsoci.stripped")
    subprocess.run(["strip", "-o", stripped, COMMAND], check=True)
    size = os.path.getsize(stripped)
    os.remove(stripped)
    print("binary:", verdict("binary size", size, SIZE_LIMIT, f"{size / 1e6:.1f} MB stripped"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", default="all", choices=["a", "b", "memory", "startup", "mount", "all"])
    parser.add_argument("--runs", type=int, default=5, help="runs a median is taken of (5)")
    parser.add_argument("--check", action="store_true", help="exit status 1 when a limit is missed")
    parser.add_argument("--make-only", action="store_true", help="only make the images")
    options = parser.parse_args()
    os.makedirs(DIRECTORY, exist_ok=True)
    parts = ["startup", "a", "b", "memory", "mount"] if options.part == "all" else [options.part]
    if options.make_only:
        for part in parts:
            if part != "startup":
                print(*image("b" if part == "mount" else part))
        return
    for part in parts:
        if part == "startup":
            startup()
        elif part == "memory":
            memory()
        elif part == "mount":
            mounts(options.runs)
        else:
            compare(part, options.runs)
    if missed:
        print("limits missed:", ", ".join(missed))
        if options.check:
            sys.exit(1)


if __name__ == "__main__":
    main()
