#!/usr/bin/env python3
"""Compares two builds of the command by the measurements of bench.py, mount.py and registry.py.

Each round measures both builds, each run on a new file system (disk.py), and the order changes from round to round. The output has the medians
of all rounds and a `ratio`, the median of new / old of each round, because a shared machine is faster in one minute than in the next. A
figure is worse if its ratio is above --limit.
"""

import argparse
import contextlib
import os
import statistics
import sys

import bench
import mount
import registry
from bench import COMMAND, DIRECTORY
from disk import MIB, Scratch

PARTS = ["startup", "a", "b", "memory", "mount", "registry-a", "registry-b"]


def pull_figures(what, result):
    wall, cpu, peak = result[:3]
    return {f"{what} wall, s": wall, f"{what} CPU, s": cpu, f"{what} peak, MiB": peak / MIB}


class Part:
    """A part of the comparison: its resources, and the figures of one build in one round."""

    def __init__(self, name, stack):
        self.name, self.stack, self.registries = name, stack, {}
        if name == "startup":
            return
        self.key = name.removeprefix("registry-")
        self.layout, _ = bench.image("b" if name == "mount" else self.key)
        bench.warm(bench.layer_blobs(self.layout))
        self.scratch = Scratch(DIRECTORY, COMMAND, *([bench.MEMORY_DISK] if name == "memory" else []))
        stack.callback(self.scratch.remove)
        if name.startswith("registry-"):
            for transport, tls in (("HTTP", False), ("TLS", True)):
                self.registries[transport] = registry.Registry(self.scratch.path(), tls)
                stack.callback(self.registries[transport].stop)
                self.registries[transport].push(self.layout, self.key)

    def figures(self, command):
        if self.name == "startup":
            return {"start-up, ms": bench.start_time(command) * 1e3, "stripped binary, MB": bench.stripped_size(command) / 1e6}
        if self.name == "mount":
            found = {}
            for what, medians, (scale, unit) in mount.figures(command, self.layout, self.scratch.fresh(), 1):
                found.update({f"{what}, {way}, {unit}": value * scale for way, value in medians.items()})
            return found
        if self.registries:
            found = {}
            for transport, server in self.registries.items():
                reference = f"{server.host}/bench/{self.key}:latest"
                result = registry.pull(self.scratch, reference, server.authority, None, command)
                found.update(pull_figures(transport, result))
                events = registry.first_event(self.scratch, reference, server.authority, command)
                found[f"{transport} first event, ms"] = events["resolving"] * 1e3
            return found
        algorithms = ["sha256"] if self.name == "memory" else bench.ALGORITHMS
        found = {}
        for algorithm in algorithms:
            found.update(pull_figures(algorithm, bench.pull(self.scratch, self.layout, algorithm, command=command)))
        return found


def compare(name, old, new, rounds, limit):
    """Prints the figures of a part and returns the names of those that are worse."""
    with contextlib.ExitStack() as stack:
        part = Part(name, stack)
        results = {old: [], new: []}
        for turn in range(rounds):
            for command in (old, new) if turn % 2 == 0 else (new, old):
                results[command].append(part.figures(command))
    worse = []
    print(f"{name}\n  {'':44} {'old':>9} {'new':>9} {'ratio':>7}")
    for figure in results[old][0]:
        before, after = ([figures[figure] for figures in results[command]] for command in (old, new))
        ratio = statistics.median(b / a for a, b in zip(before, after))
        note = ""
        if ratio > limit:
            worse.append(f"{name} {figure}")
            note = "  WORSE"
        print(f"  {figure:44} {statistics.median(before):9.2f} {statistics.median(after):9.2f} {ratio:7.3f}{note}", flush=True)
    return worse


def main():
    parser = argparse.ArgumentParser(
        prog="tools/bench/run compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", help="the command of the build to compare with; the new one is CFSOCI, or is built")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"any of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--runs", type=int, default=5, help="rounds (5)")
    parser.add_argument("--limit", type=float, default=1.03, help="the ratio above which a figure is worse (1.03)")
    parser.add_argument("--check", action="store_true", help="exit status 1 if a figure is worse")
    options = parser.parse_args()
    old, new = os.path.abspath(options.old), os.path.abspath(COMMAND)
    for command in (old, new):
        if not os.access(command, os.X_OK):
            sys.exit(f"{command} is not a program")
    if os.path.samefile(old, new):
        sys.exit(f"{old} is the new build itself: keep a copy of the old one elsewhere and use its path")
    for part in options.parts:
        if part not in PARTS:
            sys.exit(f"unknown part {part}: use any of {', '.join(PARTS)}")
    os.makedirs(DIRECTORY, exist_ok=True)
    print(f"old {old}\nnew {new}\nmedians of {options.runs} alternating rounds; ratio: the median of new / old of each round")
    worse = []
    for part in options.parts or PARTS:
        worse += compare(part, old, new, options.runs, options.limit)
    print(f"worse than {options.limit}x:", ", ".join(worse) or "none")
    if worse and options.check:
        sys.exit(1)


if __name__ == "__main__":
    main()
