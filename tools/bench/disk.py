"""Creates a new file system for each run.

A used file system is slower than a new one: ext4 skips inodes that were deleted a moment ago, and free space is scattered. So every measured
run gets a new one, in a file that is mounted through a loop device. The file is written once in advance and kept, so that no run pays
for its allocation.

BENCH_FS selects the file system: ext4 (the default), xfs, btrfs, or `none`, which uses the directory as it is and needs no root.
"""

import os
import shutil
import signal
import subprocess
import sys

MIB = 1 << 20
KIND = os.environ.get("BENCH_FS", "ext4")
MAKE = {
    # Lazy initialisation would happen while a run is measured.
    "ext4": ["mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"],
    "xfs": ["mkfs.xfs", "-q", "-f", "-K"],
    "btrfs": ["mkfs.btrfs", "-q", "-f", "-K"],
}
ALGORITHMS = {"sha256": "fsverity-sha256-12", "sha512": "fsverity-sha512-12"}


class Scratch:
    """A folder with a file system that is created again for each run. The folder is removed at the end."""

    def __init__(self, directory, command, size=3072 * MIB):
        if KIND not in MAKE and KIND != "none":
            sys.exit(f"BENCH_FS={KIND} is unknown: use {', '.join(MAKE)} or none")
        if KIND != "none" and os.geteuid() != 0:
            sys.exit("Each run mounts a file system of its own, which needs root. BENCH_FS=none measures in BENCH_DIR as it is.")
        # Unmounts its file systems even if a signal ends the program.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        self.command = command
        self.directory = os.path.join(directory, f"runs-{os.getpid()}")
        self.disk, self.mounted = os.path.join(self.directory, "disk"), os.path.join(self.directory, "mounted")
        self.size, self.is_mounted, self.count = size, False, 0
        os.makedirs(self.mounted)

    def path(self):
        """A new path outside of the file system, for data that is not measured."""
        self.count += 1
        return os.path.join(self.directory, str(self.count))

    def fresh(self):
        """An empty directory on a new file system, which replaces the previous one."""
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
