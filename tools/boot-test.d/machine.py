"""Machines that boot, what their consoles say, and what must be there."""
import hashlib, os, re, shutil, subprocess, time
from image import content
from checks import check, run, say

MACHINE_LIMIT = 420
FIRMWARE = "/usr/share/OVMF"


class Console:
    """What a machine has printed."""

    def __init__(self, text, seconds):
        self.text = text.replace("\r", "")
        self.seconds = seconds
        self.facts = re.findall(r"BOOT-TEST (.*)", self.text)

    def has(self, fact):
        return fact in self.facts

    @property
    def is_up(self):
        return self.has("end")

    def mount(self, place):
        return next((fact for fact in self.facts if fact.startswith(f"mount {place} ")), "")

    def text_of(self, path):
        return self.after(f"text {path} ")

    def after(self, beginning):
        """The rest of the fact that begins so."""
        return next((fact[len(beginning):] for fact in self.facts if fact.startswith(beginning)), None)

    @property
    def refusals(self):
        """The lines of the kernel's log by the program. Lines that it prints on standard error have no time."""
        return re.findall(r"\[ *[0-9.]+\] cfsoci-setup-root: (.*)$", self.text, flags=re.M)

    @property
    def tail(self):
        return "\n".join(self.text.splitlines()[-25:])


class Machine:
    def __init__(self, accelerator, work):
        self.accelerator, self.work, self.count = accelerator, work, 0

    def boot(self, name, disk, *arguments):
        self.count += 1
        console = f"{self.work}/console-{self.count:02}-{re.sub('[^a-z0-9]+', '-', name.lower())}"
        command = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none", "-m", "768",
                   "-smp", "1", "-machine", f"q35,accel={self.accelerator}", "-cpu", "host" if self.accelerator == "kvm" else "Nehalem",
                   "-object", "rng-random,id=random,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=random",
                   "-chardev", f"file,id=console,path={console}", "-serial", "chardev:console",
                   "-drive", f"file={disk.path},if=virtio,format=raw,cache=unsafe", *arguments]
        started = time.monotonic()
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=MACHINE_LIMIT)
            problem = done.stderr if done.returncode else ""
        except subprocess.TimeoutExpired:
            problem = f"stopped after {MACHINE_LIMIT} s"
        with open(console, encoding="utf-8", errors="replace") as file:
            result = Console(file.read(), time.monotonic() - started)
        say(f"{name}: {result.seconds:.0f} s")
        if problem:
            check(False, "the machine ends by itself", problem)
        return result

    def direct(self, name, disk, boot, entry, options):
        """qemu loads the kernel of an entry."""
        return self.boot(name, disk, "-kernel", boot + entry["linux"], "-initrd", boot + entry["initrd"], "-append", options)

    def firmware(self, name, disk, boot, loader):
        """Firmware, systemd-boot, and what it chooses on a copy of the boot partition."""
        partition = self.work + "/esp"
        if os.path.exists(partition):
            os.unlink(partition)
        run("truncate", "--size", "256M", partition)
        run("mkfs.vfat", "-F", "32", partition)
        run("mmd", "-i", partition, "::/EFI", "::/EFI/BOOT")
        run("mcopy", "-i", partition, loader, "::/EFI/BOOT/BOOTX64.EFI")
        run("mcopy", "-s", "-o", "-i", partition, *[f"{boot}/{name}" for name in os.listdir(boot)], "::/")
        variables = shutil.copy(FIRMWARE + "/OVMF_VARS_4M.fd", self.work + "/variables")
        return self.boot(
            name, disk, "-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={FIRMWARE}/OVMF_CODE_4M.fd",
            "-drive", f"if=pflash,format=raw,unit=1,file={variables}", "-drive", f"file={partition},if=virtio,format=raw,cache=unsafe")


def expect_up(console, version, identifier, verity=True, argument=None):
    """The checks of a machine that is up."""
    check(console.is_up, "the image's systemd is up, and reports", console.tail)
    check(console.has(f"version {version}") and console.has("init systemd"), f"it is version {version}", console.facts)
    root = console.mount("/")
    check(f" overlay composefs:{identifier} " in root and root.split()[3].startswith("ro"), f"/ is the image {identifier[:12]}, read-only", root)
    check(("verity=require" in root) == verity, f"the kernel {'checks' if verity else 'does not check'} every file", root)
    check(console.has("root read-only"), "nothing can be written to /usr")
    check(" overlay overlay " in console.mount("/etc") and console.mount("/etc").split()[3].startswith("rw"), "/etc is a writable overlay",
          console.mount("/etc"))
    check("/state/os/default/var" in console.mount("/var"), "/var is the one that deployments share", console.mount("/var"))
    check(" ext4 " in console.mount("/sysroot"), "the disk is at /sysroot", console.mount("/sysroot"))
    if argument:
        check(argument in (console.after("arguments ") or "").split(), "the kernel argument is that of `boot karg`", console.facts)


def expect_data(console, unreadable=()):
    """The files of the image have their content; those that are damaged cannot be read."""
    for number in range(3):
        path = f"/usr/lib/boot-test/data-{number}"
        if number in unreadable:
            found = [fact for fact in console.facts if fact.startswith("unreadable ") and path in fact]
            check(found and "Input/output error" in found[0], f"reading {path} gives EIO", found)
        else:
            check(console.has(f"sum {hashlib.sha256(content(number)).hexdigest()} {path}"), f"{path} has its content", console.facts)


def expect_local(console):
    """What the first boot changed."""
    for path, text in [("/etc/boot-test.conf", "local"), ("/etc/boot-test.d/given", "changed"), ("/var/lib/boot-test/file", "data")]:
        check(console.text_of(path) == text, f"{path} has the local change", console.facts)


def expect_refused(console, *parts):
    """One line of the kernel's log, with these parts, and no system."""
    check(not console.facts, "the image's systemd is not started", console.facts)
    lines = console.refusals
    check(len(lines) == 1, "the refusal is one line of the kernel's log, although the kernel is quiet", lines or console.tail)
    for part in parts:
        check(lines and part in lines[0], f"it says: {part if len(part) < 100 else part[:100] + '…'}", lines)
