"""Size and start of cfsoci-setup-root, the program for the initial RAM disk.

The size is that of the stripped program with all libraries that it links, without libc (with libm and the loader) and libcrypto, which every initial RAM
disk with OpenSSL has. The start is from posix_spawn(2) to the end of `cfsoci-setup-root --version`, beside /bin/true.

    tools/bench/run setup-root [--runs N] [--check]     --check: at most 8 MB, and 3 ms

Environment: CFSOCI_SETUP_ROOT, the program (default: tools/initramfs/build)
"""
import argparse
import os
import re
import statistics
import subprocess
import sys
import time

MOST_BYTES, MOST_SECONDS = 8_000_000, 0.003
SYSTEM = ("linux-vdso", "libc.so", "libm.so", "ld-linux", "libcrypto.so")


def seconds(command, runs):
    found = []
    sink = os.open("/dev/null", os.O_WRONLY)
    for _ in range(runs):
        started = time.perf_counter()
        child = os.posix_spawn(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, sink, 1)])
        _, status = os.waitpid(child, 0)
        found.append(time.perf_counter() - started)
        if status:
            sys.exit(f"{' '.join(command)}: status {status}")
    return found


parser = argparse.ArgumentParser()
parser.add_argument("--runs", type=int, default=200)
parser.add_argument("--check", action="store_true")
options = parser.parse_args()
program = os.environ["CFSOCI_SETUP_ROOT"]

sizes = {program: os.path.getsize(program)}
for line in subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout.splitlines():
    library = re.search(r"=> (/\S+)", line)
    if library and not os.path.basename(library[1]).startswith(SYSTEM):
        sizes[library[1]] = os.path.getsize(library[1])
for path, size in sizes.items():
    print(f"{size / 1e6:8.2f} MB  {path}")
total = sum(sizes.values())
print(f"{total / 1e6:8.2f} MB  in all")
start = seconds([program, "--version"], options.runs)
for name, found in [("start", start), ("/bin/true", seconds(["/bin/true"], options.runs))]:
    print(f"{statistics.median(found) * 1e3:8.2f} ms  {name}, median of {options.runs}; the shortest {min(found) * 1e3:.2f}")
if options.check and (total > MOST_BYTES or statistics.median(start) > MOST_SECONDS):
    sys.exit("more than the limit")
