"""Records every system call of a program that changes files, in the order in which they were completed, with its data and the inodes it concerns.

The kernel stops the program at each listed call (ptrace, with a seccomp filter that asks the tracer). Why this and not the seam in LinuxSystem: it
works with the release binary, includes the calls of C libraries and of children, and cannot forget a call that does not pass through the seam. Why
ptrace and not the notification that interceptor.py uses: the result of a call and the moment of its completion must be known. The calls of all
threads are serialized: a thread that reaches a listed call waits until the call of another thread has returned. So the recorded order is the order in
which they took effect, and what a call wrote can be read from its file afterwards.

The files are known by inode, from a scan before the run: calls that concern other files are not recorded. A call whose effect is not modelled (a shared
writable mapping, fs-verity, device nodes) raises an error, so a recording is complete or fails. `Tree.differences` compares the replayed recording with
the real files.
"""
import ctypes, os, platform, signal, stat, struct, sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "faults.d"))
import interceptor  # noqa: E402

MUTATING = [
    "write", "pwrite64", "writev", "pwritev2", "ftruncate", "fallocate", "copy_file_range", "ioctl", "openat", "openat2", "mkdirat", "mknodat",
    "unlinkat", "renameat", "renameat2", "linkat", "symlinkat", "setxattr", "lsetxattr", "fsetxattr", "removexattr", "fremovexattr", "fchmod",
    "fchown", "fchownat", "fchmodat", "utimensat", "fsync", "fdatasync", "syncfs",
]
# Calls that interceptor.py does not list: older forms, which the C library uses, and calls that no command should make.
MORE = {
    "x86_64": {
        "open": 2, "mmap": 9, "truncate": 76, "rename": 82, "mkdir": 83, "rmdir": 84, "creat": 85, "link": 86, "unlink": 87, "symlink": 88,
        "chmod": 90, "chown": 92, "lchown": 94, "sync": 162, "sendfile": 40, "pwritev": 296, "lremovexattr": 198, "splice": 275,
        "io_uring_setup": 425,
    },
    "aarch64": {
        "truncate": 45, "pwritev": 70, "sendfile": 71, "splice": 76, "sync": 81, "lremovexattr": 15, "mmap": 222, "io_uring_setup": 425,
    },
}
FICLONE, FICLONERANGE, ENABLE_VERITY = 0x40049409, 0x4020940D, 0x40806685
AT_FDCWD, AT_SYMLINK_NOFOLLOW, RENAME_EXCHANGE = -100, 0x100, 2
TRACE_ME, CONTINUE, SYSCALL, SET_OPTIONS, GET_INFO = 0, 7, 24, 0x4200, 0x420E
# SYSGOOD, FORK, VFORK, CLONE, EXEC, SECCOMP, EXITKILL
OPTIONS = 1 | 2 | 4 | 8 | 16 | 128 | 1 << 20
SECCOMP_STOP, RET_TRACE = 7, 0x7FF00000
WALL, NO_THREAD = 0x40000000, 0x20000000

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class Node:
    """An inode. What can change later is kept in effects; this is what it had when it was created or scanned."""

    __slots__ = ("number", "kind", "mode", "owner", "data", "target", "attributes", "entries")

    def __init__(self, number, status, target=None):
        self.number, self.kind = number, stat.S_IFMT(status.st_mode)
        self.mode, self.owner = stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)
        self.data, self.target, self.attributes, self.entries = b"", target, {}, {}


class Effect:
    """One change of one inode that a file system makes entirely or not: `key` is the name of an entry or attribute, None for the content."""

    __slots__ = ("kind", "node", "key", "value")
    ENTRY, DATA, ATTRIBUTE, MODE, OWNER, TIMES = range(6)

    def __init__(self, kind, node, key, value):
        self.kind, self.node, self.key, self.value = kind, node, key, value


class Call:
    """A completed call. `sync` is the number of the inode that it makes durable, or "all"; `onlyData` leaves out attributes."""

    __slots__ = ("name", "target", "effects", "sync", "onlyData")

    def __init__(self, name, target, effects=(), sync=None, onlyData=False):
        self.name, self.target, self.effects, self.sync, self.onlyData = name, target, list(effects), sync, onlyData

    def __str__(self):
        return f"{self.name} {self.target}".rstrip()


class Tree:
    """The files below a folder: nodes by number, and the number of the folder itself."""

    def __init__(self, folder):
        self.folder, self.nodes, self.numbers = folder, {}, {}
        self.root = self.scan(folder)

    def add(self, status, target=None):
        number = len(self.nodes)
        self.nodes[number] = Node(number, status, target)
        self.numbers[status.st_dev, status.st_ino] = number
        return number

    def scan(self, path):
        status = os.lstat(path)
        known = self.numbers.get((status.st_dev, status.st_ino))
        if known is not None:
            return known
        number = self.add(status, os.readlink(path) if stat.S_ISLNK(status.st_mode) else None)
        node = self.nodes[number]
        if node.kind == stat.S_IFREG:
            with open(path, "rb") as file:
                node.data = file.read()
        elif node.kind == stat.S_IFDIR:
            node.entries = {name: self.scan(f"{path}/{name}") for name in os.listdir(path)}
        if node.kind != stat.S_IFLNK:
            node.attributes = attributes(path)
        return number


def attributes(path):
    try:
        return {name: os.getxattr(path, name) for name in os.listxattr(path) if name.startswith("user.")}
    except OSError:
        return {}


class Unresolved(Exception):
    """A path leads to nothing now."""


class Recorder:
    """Runs commands and appends to `calls` what they do to the files of the tree, which new inodes are added to. `status` and `text` are those of the
    last one."""

    def __init__(self, tree):
        machine = platform.machine()
        known = interceptor.NUMBERS[machine]
        self.numbers = {name: known[name] for name in MUTATING} | MORE[machine]
        self.names = {number: name for name, number in self.numbers.items()}
        self.seccomp = interceptor.SECCOMP[machine]
        self.tree, self.calls, self.limit, self.status, self.text = tree, [], None, None, ""
        # The entries as they are now.
        self.entries = {node.number: dict(node.entries) for node in tree.nodes.values() if node.kind == stat.S_IFDIR}
        self.names_of = {tree.root: ""}
        for directory, entries in self.entries.items():
            for name, number in entries.items():
                self.names_of.setdefault(number, self.names_of.get(directory, "") + "/" + name)

    def run(self, command, standard_input=None, limit=None):
        """With a limit, the command is killed before the call after that many calls."""
        self.limit = None if limit is None else len(self.calls) + limit
        output = os.memfd_create("output")
        child = os.fork()
        if child == 0:
            try:
                os.dup2(os.open(standard_input or "/dev/null", os.O_RDONLY), 0)
                os.dup2(output, 1)
                os.dup2(output, 2)
                libc.ptrace(TRACE_ME, 0, None, None)
                os.kill(os.getpid(), signal.SIGSTOP)
                interceptor.install_filter(self.seccomp, self.numbers.values(), action=RET_TRACE)
                os.closerange(3, 256)
                os.execv(command[0], command)
            finally:
                os._exit(127)
        self.status = self.follow(child)
        self.text = os.pread(output, 1 << 20, 0).decode(errors="replace")
        os.close(output)

    def follow(self, child):
        _, status = os.waitpid(child, WALL)
        if not os.WIFSTOPPED(status):
            raise SystemExit("crash: this process may not trace its children")
        self.request(SET_OPTIONS, child, OPTIONS)
        self.request(CONTINUE, child)
        known, current, waiting, code = {child}, None, [], None
        while known:
            process, status = os.waitpid(-1, WALL | NO_THREAD)
            if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                known.discard(process)
                if process == child:
                    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
                if current and current[0] == process:
                    current = None
                waiting = [other for other in waiting if other != process]
            else:
                stopped, event = os.WSTOPSIG(status), status >> 16
                if event == SECCOMP_STOP:
                    waiting.append(process)
                elif stopped == signal.SIGTRAP | 0x80:
                    if current and current[0] == process:
                        self.after(process, *current[1:])
                        current = None
                    self.request(CONTINUE, process)
                elif process not in known or event or stopped == signal.SIGTRAP:
                    # A new thread stops once. Nothing has to be done when threads begin or another program is executed.
                    known.add(process)
                    self.request(CONTINUE, process)
                else:
                    self.request(CONTINUE, process, stopped)
            while waiting and current is None:
                process = waiting.pop(0)
                begun = self.before(process)
                if begun is not None and begun[1] is not None and self.limit is not None and len(self.calls) >= self.limit:
                    os.kill(child, signal.SIGKILL)
                    waiting = []
                    break
                self.request(CONTINUE if begun is None else SYSCALL, process)
                if begun is not None:
                    current = (process, *begun)
        return code

    @staticmethod
    def request(request, process, data=None):
        if libc.ptrace(request, process, None, data) < 0 and ctypes.get_errno() != 3:
            raise OSError(ctypes.get_errno(), "ptrace")

    @staticmethod
    def information(process):
        buffer = ctypes.create_string_buffer(88)
        if libc.ptrace(GET_INFO, process, len(buffer), ctypes.addressof(buffer)) < 0:
            raise OSError(ctypes.get_errno(), "ptrace")
        return buffer.raw

    # Paths and descriptors

    @staticmethod
    def text_at(process, address):
        return interceptor.read_text(process, address)

    @staticmethod
    def place(process, descriptor):
        descriptor = ctypes.c_int32(descriptor).value
        return f"/proc/{process}/cwd" if descriptor == AT_FDCWD else f"/proc/{process}/fd/{descriptor}"

    def path(self, process, directory, text):
        if text.startswith("/proc/self/"):
            return f"/proc/{process}/" + text[len("/proc/self/"):]
        return text if text.startswith("/") else self.place(process, directory) + ("/" + text if text else "")

    def number(self, path, follows=True):
        """The inode at a path, if it is one of ours."""
        try:
            status = os.stat(path) if follows else os.lstat(path)
        except OSError:
            raise Unresolved(path) from None
        return self.tree.numbers.get((status.st_dev, status.st_ino))

    def slot(self, path):
        """The directory and the name of a path's last component."""
        parent, _, name = path.rstrip("/").rpartition("/")
        directory = self.number(parent or "/")
        return None if directory is None else (directory, name)

    def name_of(self, number):
        return self.names_of.get(number, "(unnamed)")

    def create(self, path, slot, target=None, follows=False):
        status = os.stat(path) if follows else os.lstat(path)
        number = self.tree.add(status, target)
        node = self.tree.nodes[number]
        if node.kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            raise SystemExit(f"crash: {path}: such a file is not modelled")
        if node.kind == stat.S_IFDIR:
            self.entries[number] = {}
        if slot:
            self.names_of[number] = self.name_of(slot[0]) + "/" + slot[1]
        return number

    def entry(self, slot, number):
        """The effect of a changed entry, which is made known here too."""
        directory, name = slot
        if number is None:
            self.entries[directory].pop(name, None)
        else:
            self.entries[directory][name] = number
            self.names_of[number] = self.name_of(directory) + "/" + name
        return Effect(Effect.ENTRY, directory, name, number)

    # The calls. `before` returns the name and what `after` needs, or None for a call that does not concern the files.

    def before(self, process):
        information = self.information(process)
        number, *values = struct.unpack_from("<7Q", information, 24)
        name = self.names[number]
        prepare = getattr(self, "before_" + GROUPS.get(name, name), None)
        if prepare is None:
            raise SystemExit(f"crash: {name} is not modelled")
        try:
            found = prepare(process, name, values)
        except Unresolved:
            # It will fail. But the call of another thread, which may create the path, must not take effect before that.
            return (name, None)
        return None if found is None else (name, found)

    def after(self, process, name, found):
        information = self.information(process)
        result = struct.unpack_from("<q", information, 24)[0]
        if result < 0:
            return
        if found is None:
            raise SystemExit(f"crash: {name} succeeded with a path that did not exist")
        call = getattr(self, "after_" + GROUPS.get(name, name))(process, name, found, result)
        if call is not None:
            self.calls.append(call)

    def before_open(self, process, name, values):
        if name in ("open", "creat"):
            directory, address = AT_FDCWD & 0xFFFFFFFF, values[0]
            flags = values[1] if name == "open" else os.O_CREAT | os.O_WRONLY | os.O_TRUNC
        else:
            directory, address, flags = values[0], values[1], values[2]
        if name == "openat2":
            with open(f"/proc/{process}/mem", "rb", 0) as memory:
                memory.seek(values[2])
                flags = struct.unpack("<Q", memory.read(8))[0]
        isUnnamed = flags & os.O_TMPFILE == os.O_TMPFILE
        if not isUnnamed and not flags & (os.O_CREAT | os.O_TRUNC):
            return None
        path = self.path(process, directory, self.text_at(process, address))
        if isUnnamed:
            return None if self.number(path) is None else (path, None, True, flags)
        slot = self.slot(path)
        if slot is None:
            return None if not os.path.exists(path) or self.number(path) is None else (path, None, False, flags)
        return (path, slot, False, flags)

    def after_open(self, process, name, found, result):
        path, slot, isUnnamed, flags = found
        opened = f"/proc/{process}/fd/{result}"
        if isUnnamed:
            self.create(opened, None, follows=True)
            return Call(name, self.name_of(self.number(path)) + " (unnamed)")
        if slot and slot[1] not in self.entries[slot[0]]:
            number = self.create(opened, slot, follows=True)
            return Call(name, self.name_of(number), [self.entry(slot, number)])
        if flags & os.O_TRUNC:
            return self.content(process, name, (result, self.number(opened)), 0)
        return None

    def before_content(self, process, name, values):
        descriptor = values[2] if name == "copy_file_range" else values[0]
        if name == "truncate":
            raise SystemExit("crash: truncate is not modelled")
        number = self.number(self.place(process, descriptor))
        if name == "ioctl":
            if values[1] & 0xFFFFFFFF not in (FICLONE, FICLONERANGE, ENABLE_VERITY):
                return None
            if number is not None and values[1] & 0xFFFFFFFF == ENABLE_VERITY:
                return (descriptor, number, True)
        return None if number is None else (descriptor, number, False)

    def after_content(self, process, name, found, result):
        descriptor, number, isVerity = found
        if isVerity:
            raise SystemExit("crash: fs-verity is not modelled; use a file system without it")
        return self.content(process, name, (descriptor, number), result)

    def content(self, process, name, found, result):
        descriptor, number = found
        with open(self.place(process, descriptor), "rb") as file:
            data = file.read()
        return Call(name, f"{self.name_of(number)} ({len(data)} bytes)", [Effect(Effect.DATA, number, None, data)])

    def before_make(self, process, name, values):
        if name in ("mkdir", "symlink"):
            address, directory = values[1 if name == "symlink" else 0], AT_FDCWD & 0xFFFFFFFF
        elif name == "symlinkat":
            directory, address = values[1], values[2]
        else:
            directory, address = values[0], values[1]
        path = self.path(process, directory, self.text_at(process, address))
        slot = self.slot(path)
        return None if slot is None else (path, slot)

    def after_make(self, process, name, found, result):
        path, slot = found
        number = self.create(path, slot, os.readlink(path) if name.startswith("symlink") else None)
        return Call(name, self.name_of(number), [self.entry(slot, number)])

    def before_link(self, process, name, values):
        directory, address = (values[2], values[3]) if name == "linkat" else (AT_FDCWD & 0xFFFFFFFF, values[1])
        path = self.path(process, directory, self.text_at(process, address))
        slot = self.slot(path)
        return None if slot is None else (path, slot)

    def after_link(self, process, name, found, result):
        path, slot = found
        number = self.number(path, follows=False)
        if number is None:
            raise SystemExit(f"crash: {path} is a link to a file that is not known")
        effect = self.entry(slot, number)
        return Call(name, self.name_of(number), [effect])

    def before_remove(self, process, name, values):
        directory, address = (values[0], values[1]) if name == "unlinkat" else (AT_FDCWD & 0xFFFFFFFF, values[0])
        return self.slot(self.path(process, directory, self.text_at(process, address)))

    def after_remove(self, process, name, found, result):
        return Call(name, self.name_of(found[0]) + "/" + found[1], [self.entry(found, None)])

    def before_rename(self, process, name, values):
        if name == "rename":
            values = [AT_FDCWD & 0xFFFFFFFF, values[0], AT_FDCWD & 0xFFFFFFFF, values[1], 0]
        if name == "renameat2" and values[4] & RENAME_EXCHANGE:
            raise SystemExit("crash: an exchange is not modelled")
        old = self.slot(self.path(process, values[0], self.text_at(process, values[1])))
        new = self.slot(self.path(process, values[2], self.text_at(process, values[3])))
        if old is None and new is None:
            return None
        if old is None or new is None:
            raise SystemExit("crash: a rename into or out of the folder is not modelled")
        return (old, new)

    def after_rename(self, process, name, found, result):
        old, new = found
        number = self.entries[old[0]][old[1]]
        before = self.name_of(number)
        effects = [self.entry(old, None), self.entry(new, number)]
        return Call(name, f"{before} to {self.name_of(number)}", effects)

    def before_attribute(self, process, name, values):
        if name in ("fsetxattr", "fremovexattr"):
            path = self.place(process, values[0])
        else:
            path = self.path(process, AT_FDCWD & 0xFFFFFFFF, self.text_at(process, values[0]))
        number = self.number(path)
        key = self.text_at(process, values[1])
        return None if number is None or not key.startswith("user.") else (path, number, key)

    def after_attribute(self, process, name, found, result):
        path, number, key = found
        value = None if "remove" in name else os.getxattr(path, key)
        return Call(name, f"{self.name_of(number)} {key}", [Effect(Effect.ATTRIBUTE, number, key, value)])

    def before_status(self, process, name, values):
        # The link itself, not what it leads to.
        follows = name != "lchown" and not (name == "utimensat" and values[3] & AT_SYMLINK_NOFOLLOW)
        follows = follows and not (name == "fchownat" and values[4] & AT_SYMLINK_NOFOLLOW)
        if name in ("fchmod", "fchown"):
            path = self.place(process, values[0])
        elif name in ("chmod", "chown", "lchown"):
            path = self.path(process, AT_FDCWD & 0xFFFFFFFF, self.text_at(process, values[0]))
        else:
            text = self.text_at(process, values[1]) if values[1] else ""
            path = self.path(process, values[0], text)
        number = self.number(path, follows)
        return None if number is None else (path, number, follows)

    def after_status(self, process, name, found, result):
        path, number, follows = found
        status = os.stat(path) if follows else os.lstat(path)
        if "chmod" in name:
            effect = Effect(Effect.MODE, number, "", stat.S_IMODE(status.st_mode))
        elif "chown" in name:
            effect = Effect(Effect.OWNER, number, "", (status.st_uid, status.st_gid))
        else:
            effect = Effect(Effect.TIMES, number, "", (status.st_atime_ns, status.st_mtime_ns))
        return Call(name, self.name_of(number), [effect])

    def before_sync(self, process, name, values):
        if name == "sync":
            return ("all",)
        number = self.number(self.place(process, values[0]))
        if number is None:
            return None
        return ("all",) if name == "syncfs" else (number,)

    def after_sync(self, process, name, found, result):
        target = "" if found[0] == "all" else self.name_of(found[0])
        return Call(name, target, sync=found[0], onlyData=name == "fdatasync")

    def before_map(self, process, name, values):
        protection, flags, descriptor = values[2], values[3], values[4]
        if protection & 2 and flags & 3 == 1 and not flags & 0x20 and self.number(self.place(process, descriptor)) is not None:
            raise SystemExit("crash: a shared writable mapping is not modelled")
        return None


    def before_other(self, process, name, values):
        if name == "io_uring_setup" or self.number(self.place(process, values[2 if name == "splice" else 0])) is not None:
            raise SystemExit(f"crash: {name} is not modelled")
        return None


GROUPS = {
    "open": "open", "openat": "open", "openat2": "open", "creat": "open", "mkdirat": "make", "mkdir": "make", "mknodat": "make",
    "symlinkat": "make", "symlink": "make", "linkat": "link", "link": "link", "unlinkat": "remove", "unlink": "remove", "rmdir": "remove",
    "renameat": "rename", "renameat2": "rename", "rename": "rename", "fsync": "sync", "fdatasync": "sync", "syncfs": "sync", "sync": "sync",
    "mmap": "map", "sendfile": "other", "splice": "other", "io_uring_setup": "other",
}
GROUPS |= dict.fromkeys(
    ["write", "pwrite64", "writev", "pwritev", "pwritev2", "ftruncate", "truncate", "fallocate", "copy_file_range", "ioctl"], "content")
GROUPS |= dict.fromkeys(["setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr"], "attribute")
GROUPS |= dict.fromkeys(["fchmod", "fchown", "fchownat", "fchmodat", "chmod", "chown", "lchown", "utimensat"], "status")
