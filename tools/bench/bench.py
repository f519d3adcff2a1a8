#!/usr/bin/env python3
"""Measures the CPU time, memory and wall time of a pull against the floor: the minimum for any store that verifies and keeps everything.

The floor is floor.c, which inflates, hashes, creates the objects and syncs. Pull and floor alternate. The page cache is warm, every run has a
new repository on a new file system (disk.py), and everything is synced before each run. Figures are medians.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import mount
from disk import ALGORITHMS, MIB, Scratch

HERE = os.path.dirname(os.path.abspath(__file__))
DIRECTORY = os.environ["BENCH_DIR"]
COMMAND = os.environ["CFSOCI"]

# The project's own limits: wall clock against the floor with sha256, peak memory, start of commands, size.
WALL_LIMIT = {"a": 1.5, "b": 2.0}
MEMORY_LIMIT = 96 * MIB
# Seconds on an idle machine.
START_LIMITS = {"--version": 0.005, "ls": 0.008}
CONFINEMENT_LIMIT = 0.001
SIZE_LIMIT = 25_000_000
# Enough for the file of 3 GiB and the file system's own data.
MEMORY_DISK = 5 << 30

missed = []


def verdict(what, value, limit, text):
    if value <= limit:
        return f"{text} (limit met)"
    missed.append(what)
    return f"{text} (LIMIT MISSED)"


def image(name):
    """The layout of an image; creates it if it is missing."""
    directory = os.path.join(DIRECTORY, "image-" + name)
    if not os.path.exists(os.path.join(directory, "facts.json")):
        print(f"making image {name} …", file=sys.stderr)
        subprocess.run([sys.executable, os.path.join(HERE, "images.py"), name, directory], check=True)
    with open(os.path.join(directory, "facts.json")) as source:
        return directory, json.load(source)


def blob_path(layout, digest):
    return os.path.join(layout, "blobs", digest.replace(":", "/"))


def document(layout, digest):
    with open(blob_path(layout, digest)) as source:
        return json.load(source)


def manifest_of(layout):
    with open(os.path.join(layout, "index.json")) as source:
        return document(layout, json.load(source)["manifests"][0]["digest"])


def layer_blobs(layout):
    return [blob_path(layout, layer["digest"]) for layer in manifest_of(layout)["layers"]]


def layer_digests(layout):
    """The digest and the diff ID of each layer."""
    manifest = manifest_of(layout)
    diff_ids = document(layout, manifest["config"]["digest"])["rootfs"]["diff_ids"]
    return [(layer["digest"], diff_id) for layer, diff_id in zip(manifest["layers"], diff_ids, strict=True)]


def warm(paths):
    for path in paths:
        with open(path, "rb") as source:
            while source.read(8 * MIB):
                pass


def run(arguments, **options):
    """Runs a command. Returns wall seconds, CPU seconds (including children), peak resident bytes of the largest process, stderr, stdout."""
    os.sync()
    errors, peak, output = (os.path.join(DIRECTORY, name + ".txt") for name in ("stderr", "peak", "stdout"))
    # A process inherits the peak of the process that forked it, so a small process must fork: the peak of this interpreter is too high.
    arguments = ["/usr/bin/time", "--quiet", "--format", "%M", "--output", peak, *arguments]
    with open(errors, "wb") as sink, open(output, "wb") as out:
        start = time.monotonic()
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=sink, **options)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    with open(errors, errors="replace") as source:
        text = source.read()
    if process.returncode != 0:
        sys.exit(f"{' '.join(arguments[6:])} ended with status {process.returncode}:\n{text}")
    with open(peak) as source:
        kibibytes = int(source.read())
    with open(output, errors="replace") as source:
        return wall, usage.ru_utime + usage.ru_stime, kibibytes * 1024, text, source.read()


def floor_program():
    """The path of the program of floor.c; builds it if it is older than its source."""
    source, program = os.path.join(HERE, "floor.c"), os.path.join(DIRECTORY, "floor")
    if not os.path.exists(program) or os.path.getmtime(program) < os.path.getmtime(source):
        subprocess.run(
            ["cc", "-std=gnu17", "-O2", "-Wall", "-Werror", "-o", program, source, "-lisal", "-lcrypto", "-pthread"], check=True
        )
    return program


def check_floor(output, layout):
    """Exits if the floor did not read the layers of the image's documents, because its time would be meaningless."""
    found = [tuple(line.split()[:2]) for line in output.splitlines()]
    if found != layer_digests(layout):
        sys.exit(f"the floor hashed other layers than those of the image:\n{output}")


def pull(scratch, layout, algorithm, *options, command=COMMAND):
    repository = scratch.repository(algorithm, command)
    return run([command, "--repo", repository, "pull", f"oci:{layout}:bench", *options])


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
    scratch = Scratch(DIRECTORY, COMMAND)
    floor = floor_program()
    floors, pulls = [], {algorithm: [] for algorithm in ALGORITHMS}
    try:
        for _ in range(runs):
            floors.append(run([floor, os.path.join(scratch.fresh(), "floor"), *blobs]))
            check_floor(floors[-1][4], layout)
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
        print("memory: skipped, it needs 12 GiB of free space in", DIRECTORY)
        return
    layout, facts = image("memory")
    scratch = Scratch(DIRECTORY, COMMAND, MEMORY_DISK)
    try:
        wall, cpu, peak = pull(scratch, layout, "sha256")[:3]
        text = verdict("3 GiB memory", peak, MEMORY_LIMIT, f"peak {peak / MIB:.1f} MiB")
        print(f"memory: one file of 3 GiB ({facts['compressed'] / 1e6:.0f} MB compressed): {text}, wall {wall:.1f}s, CPU {cpu:.1f}s")
    finally:
        scratch.remove()


def mounts(runs):
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        print("mount: skipped, it needs root and FUSE")
        return
    layout, facts = image("b")
    scratch = Scratch(DIRECTORY, COMMAND)
    try:
        mount.measure(COMMAND, layout, facts, scratch.fresh(), runs, verdict)
    finally:
        scratch.remove()


def start_time(program, *arguments):
    """The median time of 200 runs of the program, by default with `--version`, in seconds."""
    return start_times([program, *(arguments or ["--version"])])[0][0]


def start_times(*commands, status=0):
    """The median wall and CPU seconds of 200 runs of several commands, which take turns. Exits if one ends with another status."""
    times = [[] for _ in commands]
    with open(os.devnull, "wb") as sink:
        silent = [(os.POSIX_SPAWN_DUP2, sink.fileno(), number) for number in (1, 2)]
        for _ in range(200):
            for command, taken in zip(commands, times, strict=True):
                start = time.monotonic()
                process = os.posix_spawn(command[0], command, os.environ, file_actions=silent)
                _, ended, usage = os.wait4(process, 0)
                taken.append((time.monotonic() - start, usage.ru_utime + usage.ru_stime))
                if os.waitstatus_to_exitcode(ended) != status:
                    sys.exit(f"{' '.join(command)} ended with status {os.waitstatus_to_exitcode(ended)}, not {status}")
    return [tuple(statistics.median(run[index] for run in taken) for index in range(2)) for taken in times]


def confinement_time():
    """How much later a command ends that confines itself: `ls` of an image that a new repository does not have."""
    with tempfile.TemporaryDirectory(dir=DIRECTORY) as scratch:
        repository = os.path.join(scratch, "repository")
        subprocess.run([COMMAND, "init", "--insecure", "--quiet", repository], check=True, stdout=subprocess.DEVNULL)
        command = [COMMAND, "ls", "none", "--repo", repository]
        # No such image.
        (confined, _), (free, _) = start_times(command, command + ["--no-sandbox"], status=3)
    return confined - free


def command_starts():
    """The wall and CPU seconds of commands that do little, from their start to their end, by name."""
    layout = os.path.join(HERE, "../../Tests/Fixtures/quickstart-layout")
    with tempfile.TemporaryDirectory(dir=DIRECTORY) as scratch:
        repository = os.path.join(scratch, "repository")
        for arguments in (["init", "--insecure", repository], ["pull", f"oci:{layout}:example", "example", "--repo", repository]):
            subprocess.run([COMMAND, *arguments, "--quiet"], check=True, stdout=subprocess.DEVNULL)
        commands = {
            "--version": ["--version"],
            "version": ["version"],
            "ls": ["ls", "example", "--repo", repository],
            "images": ["images", "--repo", repository],
        }
        times = start_times([shutil.which("true")], *([COMMAND, *arguments] for arguments in commands.values()))
    return dict(zip(["true", *commands], times, strict=True))


def stripped_size(program):
    stripped = os.path.join(DIRECTORY, "cfsoci.stripped")
    subprocess.run(["strip", "-o", stripped, program], check=True)
    size = os.path.getsize(stripped)
    os.remove(stripped)
    return size


def startup():
    print(f"start-up, medians of 200 runs:\n  {'':16} {'wall':>8} {'CPU':>8}")
    for name, (wall, cpu) in command_starts().items():
        text = f"{wall * 1e3:5.1f} ms {cpu * 1e3:5.1f} ms"
        if name in START_LIMITS:
            text = verdict(f"start of {name}", wall, START_LIMITS[name], text)
        print(f"  {name if name == 'true' else 'cfsoci ' + name:16} {text}")
    more = confinement_time()
    print("confinement:", verdict("confinement", more, CONFINEMENT_LIMIT, f"{more * 1e3:.2f} ms more for a command that reads an image"))
    size = stripped_size(COMMAND)
    print("binary:", verdict("binary size", size, SIZE_LIMIT, f"{size / 1e6:.1f} MB stripped"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", default="all", choices=["a", "b", "memory", "startup", "mount", "all"])
    parser.add_argument("--runs", type=int, default=5, help="runs per median (5)")
    parser.add_argument("--check", action="store_true", help="exit status 1 if a limit is missed")
    parser.add_argument("--make-only", action="store_true", help="only create the images")
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
