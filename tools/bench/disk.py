"""A file system for each run, made anew.

A file system that was used is slower than a new one: ext4 steps over inodes that were deleted a moment ago, and free space is
scattered. So every run that is measured gets a new one, in a file of its own that is mounted through a loop device. The file is written
once before and then kept, so that no run pays for its space.

BENCH_FS names the file system: ext4 (the default), xfs, btrfs, or `none`, which uses the directory as it is and takes no root.
"""

import os
import shutil
import signal
import subprocess
import sys

MIB = 1 << 20
KIND = os.environ.get("BENCH_FS", "ext4")
MAKE = {
    # All that is done lazily would be done while a run is measured.
    "ext4": ["mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"],
    "xfs": ["mkfs.xfs", "-q", "-f", "-K"],
    "btrfs": ["mkfs.btrfs", "-q", "-f", "-K"],
}
ALGORITHMS = {"sha256": "fsverity-sha256-12", "sha512": "fsverity-sha512-12"}


class Scratch:
    """A folder that is removed at the end, and in it a file system that is made anew for each run."""

    def __init__(self, directory, command, size=3072 * MIB):
        if KIND not in MAKE and KIND != "none":
            sys.exit(f"BENCH_FS={KIND}: known are {', '.join(MAKE)} and none")
        if KIND != "none" and os.geteuid() != 0:
            sys.exit("Each run has a file system of its own, and to mount it takes root. BENCH_FS=none measures in BENCH_DIR as it is.")
        # Ended by a signal, it still takes its mounts away.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        self.command = command
        self.directory = os.path.join(directory, f"runs-{os.getpid()}")
        self.disk, self.mounted = os.path.join(self.directory, "disk"), os.path.join(self.directory, "mounted")
        self.size, self.is_mounted, self.count = size, False, 0
        os.makedirs(self.mounted)

    def path(self):
        """A new path beside the file system, for what is not measured."""
        self.count += 1
        return os.path.join(self.directory, str(self.count))

    def fresh(self):
        """An empty directory, on a file system made for it. What was in the last one is lost."""
        if KIND == "none":
            path = self.path()
            os.mkdir(path)
            return path
        self.unmount()
        if not os.path.exists(self.disk):
            with open(self.disk, "wb") as sink:
                for _ in range(self.size // MIB):
                    sink.write(bytes(MIB))
                os.fsync(sink.fileno())
        subprocess.run([*MAKE[KIND], self.disk], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["mount", "-t", KIND, "-o", "loop", self.disk, self.mounted], check=True)
        self.is_mounted = True
        path = os.path.join(self.mounted, "run")
        os.mkdir(path)
        return path

    def repository(self, algorithm, command=None):
        """A new repository on a new file system."""
        path = os.path.join(self.fresh(), "repository")
        arguments = [command or self.command, "init", path, "--algorithm", ALGORITHMS[algorithm], "--insecure"]
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return path

    def unmount(self):
        if self.is_mounted:
            subprocess.run(["umount", self.mounted], check=True)
            self.is_mounted = False

    def remove(self):
        self.unmount()
        shutil.rmtree(self.directory, ignore_errors=True)
