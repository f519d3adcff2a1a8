#!/usr/bin/env python3
"""Measures a pull from a registry on loopback against the same pull from a layout.

The registry is Debian's docker-registry, over plain HTTP and over TLS. It runs on the same machine, so the wall time includes its CPU time, which is
printed too. Runs alternate, each has a new repository on a new file system (disk.py), and everything is synced before each run. Figures are
medians. `wall/layout` and `peak/layout` (resident memory) are the medians of the ratio in each round, because a shared machine is faster in one
minute than in the next. The first progress event is the first line of `--progress json`, measured from the start of the process.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time

import bench
from bench import COMMAND, DIRECTORY, missed, verdict
from disk import MIB, Scratch

WALL_LIMIT = 1.15
EVENT_LIMIT = 0.100
# The same as from a layout, besides the code and data of libcurl and its libraries, which only a registry needs (library_memory): OpenSSL, too, is set
# up for libcurl alone. The rest of the difference is the code of the registry client and of TLS, and network buffers of less than 1 MiB for each layer
# that is read at the same time. Neither grows with the image.
MEMORY_LIMIT = 1.10


def certificate(directory):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=bench"]
        + ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{directory}/key.pem", "-out", f"{directory}/cert.pem"],
        check=True,
        stderr=subprocess.DEVNULL,
    )


class Registry:
    """A docker-registry over a storage directory."""

    def __init__(self, directory, tls):
        os.makedirs(directory, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.host = f"127.0.0.1:{port}"
        self.authority = f"{directory}/cert.pem" if tls else None
        text = "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        text += f"storage: {{filesystem: {{rootdirectory: {directory}/store}}}}\nhttp:\n  addr: {self.host}\n"
        if tls:
            certificate(directory)
            text += f"  tls: {{certificate: {directory}/cert.pem, key: {directory}/key.pem}}\n"
        with open(f"{directory}/config.yml", "w") as sink:
            sink.write(text)
        self.log = open(f"{directory}/log", "w")
        self.process = subprocess.Popen(["docker-registry", "serve", f"{directory}/config.yml"], stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    sys.exit(f"docker-registry did not start; see {directory}/log")
                time.sleep(0.05)

    def cpu(self):
        with open(f"/proc/{self.process.pid}/stat") as source:
            fields = source.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def push(self, layout, name):
        subprocess.run(
            ["skopeo", "--insecure-policy", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false"]
            + [f"oci:{layout}:bench", f"docker://{self.host}/bench/{name}:latest"],
            check=True,
        )

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


def pull(scratch, reference, authority, jobs, command=COMMAND):
    repository = scratch.repository("sha256", command)
    environment = dict(os.environ)
    if authority:
        environment["SSL_CERT_FILE"] = authority
    options = ["--jobs", str(jobs)] if jobs else []
    return bench.run([command, "--repo", repository, "pull", reference, "image", *options], env=environment)


def first_event(scratch, reference, authority, command=COMMAND):
    repository = scratch.repository("sha256", command)
    environment = dict(os.environ)
    if authority:
        environment["SSL_CERT_FILE"] = authority
    start = time.monotonic()
    process = subprocess.Popen(
        [command, "--repo", repository, "pull", reference, "image", "--progress", "json"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment,
    )
    times = {}
    for line in process.stderr:
        times.setdefault(json.loads(line)["event"], time.monotonic() - start)
    if process.wait() != 0:
        sys.exit(f"the pull of {reference} ended with status {process.returncode}")
    return times


def library_memory():
    """How many bytes libcurl and its libraries take, loaded and initialised, besides libraries that every pull needs."""
    program = """
import ctypes, os
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
for name in ("libcrypto.so.3", "libz.so.1", "libzstd.so.1"):
    ctypes.CDLL(name)
before = resident()
# CURL_GLOBAL_DEFAULT, which sets up all of OpenSSL.
ctypes.CDLL("libcurl.so.4").curl_global_init(3)
print(resident() - before)
"""
    found = [subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout for _ in range(9)]
    return statistics.median(map(int, found))


def measure(name, runs, jobs):
    layout, facts = bench.image(name)
    bench.warm(bench.layer_blobs(layout))
    print(
        f"image {name}: {facts['layers']} gzip layer(s), {facts['entries']} entries, "
        f"{facts['uncompressed'] / 1e6:.0f} MB ({facts['compressed'] / 1e6:.0f} MB compressed)"
    )
    scratch = Scratch(DIRECTORY, COMMAND)
    registries = {}
    try:
        for key, tls in (("plain", False), ("TLS", True)):
            registries[key] = Registry(scratch.path(), tls)
            registries[key].push(layout, name)
        results = {"layout": [], **{key: [] for key in registries}}
        served = {key: [] for key in registries}
        for turn in range(runs):
            # The order of the runs must not matter.
            order = list(results)
            for key in order[turn % len(order) :] + order[: turn % len(order)]:
                if key == "layout":
                    results[key].append(pull(scratch, f"oci:{layout}:bench", None, jobs))
                    continue
                registry = registries[key]
                before = registry.cpu()
                results[key].append(pull(scratch, f"{registry.host}/bench/{name}:latest", registry.authority, jobs))
                served[key].append(registry.cpu() - before)
        library = library_memory()
        print(f"  {'':8} libcurl adds {library / MIB:.1f} MiB to a peak; peak/layout adds them to the layout's")
        print(f"  {'':8} {'wall':>8} {'CPU':>8} {'peak':>10}   {'wall/layout':>11} {'peak/layout':>12} {'registry CPU':>13}")
        for key, runs_of_key in results.items():
            wall, cpu, memory = (statistics.median(result[index] for result in runs_of_key) for index in range(3))
            text = ""
            if key != "layout":
                pairs = list(zip(runs_of_key, results["layout"]))
                wall_ratio = statistics.median(run[0] / layout_run[0] for run, layout_run in pairs)
                memory_ratio = statistics.median(run[2] / (layout_run[2] + library) for run, layout_run in pairs)
                text = f"{wall_ratio:10.2f}x {memory_ratio:11.2f}x {statistics.median(served[key]):12.2f}s"
                if key == "plain":
                    text = verdict(f"{name} registry wall", wall_ratio, WALL_LIMIT, text)
                    text = verdict(f"{name} registry memory", memory_ratio, MEMORY_LIMIT, text)
            print(f"  {key:8} {wall:7.2f}s {cpu:7.2f}s {memory / MIB:6.1f} MiB   {text}")
            if memory > bench.MEMORY_LIMIT:
                missed.append(f"{name} {key} memory")
                print(f"  {'':8} (LIMIT MISSED: {bench.MEMORY_LIMIT // MIB} MiB)")
        print("  walls    " + "; ".join(f"{key} {bench.spread(value)}" for key, value in results.items()))
        for key, registry in registries.items():
            events = [first_event(scratch, f"{registry.host}/bench/{name}:latest", registry.authority) for _ in range(runs)]

            def median(event):
                return statistics.median(times[event] for times in events if event in times)

            text = f"first event {median('resolving') * 1e3:.0f} ms"
            text = verdict(f"{name} {key} first event", median("resolving"), EVENT_LIMIT, text)
            print(f"  {key:8} {text}, resolved {median('resolved') * 1e3:.0f} ms, first layer begun {median('layerStarted') * 1e3:.0f} ms")
    finally:
        for registry in registries.values():
            registry.stop()
        scratch.remove()


def main():
    parser = argparse.ArgumentParser(prog="tools/bench/run registry", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="*", help="a, b (default: both)")
    parser.add_argument("--runs", type=int, default=9, help="runs per median (9)")
    parser.add_argument("--jobs", type=int, help="layers at once (the command's default)")
    parser.add_argument("--check", action="store_true", help="exit status 1 if a limit is missed")
    options = parser.parse_args()
    os.makedirs(DIRECTORY, exist_ok=True)
    for tool in ("docker-registry", "skopeo"):
        if not shutil.which(tool):
            sys.exit(f"{tool} is not installed")
    for name in options.images or ["a", "b"]:
        measure(name, options.runs, options.jobs)
    if missed:
        print("limits missed:", ", ".join(missed))
        if options.check:
            sys.exit(1)


if __name__ == "__main__":
    main()
