"""Disks with fs-verity, filled in a virtual machine whose kernel has it, and changed below the file system."""
import os, re, subprocess
from checks import CFSOCI, HERE, Broken, make, run, write

BLOCK = 4096
VERITY_FLAG = 0x100000  # EXT4_VERITY_FL


class Disk:
    """An ext4 file system with fs-verity in a file, with the repository `composefs`, `state` and the boot partition `boot` in its root."""

    def __init__(self, work, path):
        self.work, self.path = work, path

    def fill(self, *commands, before=""):
        """Runs commands of cfsoci where the disk is mounted at /verity, and copies the boot partition to `boot` in the work directory.

        Returns what each printed. `before` is what the shell does first.
        """
        results = make(self.work + "/results")
        lines = ["set -e", before, "mkdir -p /verity/boot", f"cd '{self.work}'"]
        for number, command in enumerate(commands):
            lines.append(f"'{CFSOCI}' --repo /verity/composefs --quiet {command} > results/{number} 2> results/{number}.error || "
                         f"{{ echo 'cfsoci {command.split()[0]}:'; cat results/{number}.error; exit 1; }} >&2")
        lines += ["rm -rf boot; cp -r /verity/boot boot", "sync"]
        write(self.work + "/script", "\n".join(lines) + "\n")
        run(HERE + "/verity-vm", "--keep-disk", self.path, "--disk", "2G", "--share", self.work, "--timeout", 1200, "--", "bash",
            self.work + "/script")
        # The journal must be empty: replayed later, it would undo what is changed below.
        status = subprocess.run(["e2fsck", "-p", self.path], capture_output=True, text=True)
        if status.returncode > 1:
            raise Broken(f"e2fsck: {status.stdout}{status.stderr}")
        return [open(f"{results}/{number}").read() for number in range(len(commands))]

    def copy(self, work, name):
        other = Disk(work, f"{work}/{name}")
        run("cp", "--sparse=always", "--reflink=auto", self.path, other.path)
        return other

    def flip(self, path, block=0, offset=100):
        """Changes a byte of a file."""
        text = run("debugfs", "-R", f"bmap {path} {block}", self.path)
        number = int(text.split()[-1])
        assert number != 0, f"{path} has no block {block}: {text}"
        with open(self.path, "r+b") as file:
            file.seek(number * BLOCK + offset)
            byte = file.read(1)
            file.seek(number * BLOCK + offset)
            file.write(bytes([byte[0] ^ 0x20]))

    def lose_verity(self, path):
        """Takes fs-verity from a file, as a restored copy has none."""
        flags = int(re.search(r"Flags: 0x([0-9a-f]+)", run("debugfs", "-R", f"stat {path}", self.path))[1], 16)
        assert flags & VERITY_FLAG, f"{path} has no fs-verity"
        run("debugfs", "-w", "-R", f"set_inode_field {path} flags {flags & ~VERITY_FLAG:#x}", self.path)  # it always exits with 0
        assert f"Flags: {flags & ~VERITY_FLAG:#x}" in run("debugfs", "-R", f"stat {path}", self.path), f"{path} keeps fs-verity"

    def copy_without_verity(self, work, name):
        """The same files in a file system that has no fs-verity."""
        tree = make(f"{work}/{name}.tree")
        run("debugfs", "-R", f"rdump /composefs /state {tree}", self.path)
        return Disk.make(f"{work}/{name}", tree)

    @staticmethod
    def make(path, tree):
        """A file system without fs-verity, of a tree."""
        run("mkfs.ext4", "-q", "-F", "-b", BLOCK, "-d", tree, path, "2G")
        return Disk(os.path.dirname(path), path)


def entries(boot):
    """The entries of a boot partition: file name and the values of their keys."""
    found = {}
    for name in sorted(os.listdir(boot + "/loader/entries")):
        with open(f"{boot}/loader/entries/{name}") as file:
            pairs = [line.strip().split(None, 1) for line in file if line.strip() and not line.startswith("#")]
        found[name] = {key: value for key, value in (pair for pair in pairs if len(pair) == 2)}
    return found
