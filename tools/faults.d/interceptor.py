"""Runs a program and makes one of its system calls fail, or kills it there.

The kernel asks before each listed call (seccomp user notification), so the program needs no debug build, variable or preloaded library, and
calls of the C library are included. Calls are counted over all threads. Only calls that concern files below one folder count: those for the
loader, the locale or the terminal are ignored.
"""
import ctypes, errno, fcntl, os, platform, select, signal, socket, struct

NUMBERS = {
    "x86_64": {
        "read": 0, "write": 1, "fstat": 5, "lseek": 8, "ioctl": 16, "pread64": 17, "pwrite64": 18, "writev": 20, "flock": 73, "fsync": 74,
        "fdatasync": 75, "ftruncate": 77, "fchmod": 91, "fchown": 93, "fstatfs": 138, "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190,
        "getxattr": 191, "lgetxattr": 192, "fgetxattr": 193, "flistxattr": 196, "removexattr": 197, "fremovexattr": 199, "getdents64": 217,
        "openat": 257, "mkdirat": 258, "mknodat": 259, "fchownat": 260, "newfstatat": 262, "unlinkat": 263, "renameat": 264, "linkat": 265,
        "symlinkat": 266, "readlinkat": 267, "fchmodat": 268, "faccessat": 269, "utimensat": 280, "fallocate": 285, "dup3": 292,
        "syncfs": 306, "renameat2": 316, "copy_file_range": 326, "pwritev2": 328, "statx": 332, "openat2": 437, "faccessat2": 439,
    },
    "aarch64": {
        "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "getxattr": 8, "lgetxattr": 9, "fgetxattr": 10, "flistxattr": 13, "removexattr": 14,
        "fremovexattr": 16, "dup3": 24, "ioctl": 29, "flock": 32, "mknodat": 33, "mkdirat": 34, "unlinkat": 35, "symlinkat": 36,
        "linkat": 37, "renameat": 38, "fstatfs": 44, "ftruncate": 46, "fallocate": 47, "faccessat": 48, "fchmod": 52, "fchmodat": 53,
        "fchownat": 54, "fchown": 55, "openat": 56, "getdents64": 61, "lseek": 62, "read": 63, "write": 64, "writev": 66, "pread64": 67,
        "pwrite64": 68, "readlinkat": 78, "newfstatat": 79, "fstat": 80, "fsync": 82, "fdatasync": 83, "utimensat": 88, "syncfs": 267,
        "renameat2": 276, "copy_file_range": 285, "pwritev2": 287, "statx": 291, "openat2": 437, "faccessat2": 439,
    },
}
SECCOMP = {"x86_64": 317, "aarch64": 277}
READING = {
    "read", "pread64", "fstat", "lseek", "fstatfs", "getxattr", "lgetxattr", "fgetxattr", "flistxattr", "getdents64", "newfstatat",
    "readlinkat", "faccessat", "faccessat2", "statx", "dup3",
}
# The positions of (directory, path) pairs among the arguments. All other calls work on the descriptor in their first argument.
PATHS = {
    "openat": (0, 1), "openat2": (0, 1), "mkdirat": (0, 1), "mknodat": (0, 1), "fchownat": (0, 1), "newfstatat": (0, 1), "unlinkat": (0, 1),
    "renameat": (2, 3), "renameat2": (2, 3), "linkat": (2, 3), "symlinkat": (1, 2), "readlinkat": (0, 1), "fchmodat": (0, 1),
    "faccessat": (0, 1), "faccessat2": (0, 1), "utimensat": (0, 1), "statx": (0, 1), "setxattr": (None, 0), "lsetxattr": (None, 0),
    "getxattr": (None, 0), "lgetxattr": (None, 0), "removexattr": (None, 0), "copy_file_range": (2, None),
}
SYNCS = {"fsync", "fdatasync", "syncfs"}
AT_FDCWD = -100
RECEIVE, SEND = 0xC0502100, 0xC0182101


class Call:
    """A counted call: its name and its object, and its number among all requests of the kernel."""

    def __init__(self, name, target, flags, number):
        self.name, self.target, self.flags, self.number = name, target, flags, number

    @property
    def changes(self):
        if self.name in ("openat", "openat2"):
            return self.flags is None or self.flags & (os.O_CREAT | os.O_TRUNC) != 0 or self.flags & os.O_TMPFILE == os.O_TMPFILE
        return self.name not in READING

    def __str__(self):
        return f"{self.name} {self.target}"


class Outcome:
    """How a run ended. `status` is negative for a signal. `failed` is the call that failed, or before which the program was killed."""

    def __init__(self, status, output, error, calls, failed):
        self.status, self.output, self.error, self.calls, self.failed = status, output, error, calls, failed


class Plan:
    """Which call fails: the first from request number `at` on that concerns `folder` and is wanted. Nothing fails if `at` is None; then
    all such calls are recorded."""

    def __init__(self, folder, at, error, kill, wanted):
        self.folder, self.at, self.error, self.kill, self.wanted = folder, at, error, kill, wanted
        self.requests, self.calls, self.failed = 0, [], None


def run(command, folder, at=None, error=None, kill=False, wanted=lambda call: True, standard_input=None):
    """Runs a command. The first of the wanted calls that concern `folder`, from request number `at` on, fails with `error`, or the program
    is killed before it."""
    plan = Plan(folder, at, error, kill, wanted)
    machine = platform.machine()
    numbers = NUMBERS[machine]
    names = {number: name for name, number in numbers.items()}
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    out_read, out_write = os.pipe()
    error_read, error_write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(out_write, 1)
            os.dup2(error_write, 2)
            os.dup2(os.open(standard_input or os.devnull, os.O_RDONLY), 0)
            listener = install_filter(SECCOMP[machine], numbers.values())
            socket.send_fds(theirs, [b"x"], [listener])
            os.closerange(3, 256)
            os.execv(command[0], command)
        finally:
            os._exit(127)
    for descriptor in (out_write, error_write):
        os.close(descriptor)
    theirs.close()
    _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    ours.close()
    listener = descriptors[0]
    poll = select.poll()
    for descriptor in (listener, out_read, error_read):
        poll.register(descriptor, select.POLLIN)
    texts = {out_read: bytearray(), error_read: bytearray()}
    is_over = False
    while not is_over:
        for descriptor, event in poll.poll(60000) or [(None, 0)]:
            if descriptor is None:
                os.kill(child, signal.SIGKILL)
                texts[error_read] += b"\nfaults: no call for 60 s"
                is_over = True
            elif descriptor != listener:
                data = os.read(descriptor, 65536)
                texts[descriptor] += data
                if not data:
                    poll.unregister(descriptor)
            elif event & select.POLLIN:
                answer_one(listener, names, child, plan)
            else:
                is_over = True
    os.close(listener)
    status = os.waitpid(child, 0)[1]
    for descriptor in texts:
        while data := os.read(descriptor, 65536):
            texts[descriptor] += data
        os.close(descriptor)
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return Outcome(code, texts[out_read].decode(errors="replace"), texts[error_read].decode(errors="replace"), plan.calls, plan.failed)


def answer_one(listener, names, child, plan):
    request = bytearray(80)
    try:
        fcntl.ioctl(listener, RECEIVE, request)
    except OSError as fault:
        if fault.errno in (errno.ENOENT, errno.EINTR):
            return
        raise
    identity, process, _, number, _, _ = struct.unpack_from("<QIIiIQ", request)
    answer = (0, 1)  # continue
    plan.requests += 1
    # Only the calls that may fail need be known: to describe one takes longer than all else.
    if plan.at is None or plan.failed is None and plan.requests > plan.at:
        call = describe(names[number], process, struct.unpack_from("<6Q", request, 32), plan.folder, plan.requests - 1)
        if call is not None and plan.wanted(call):
            plan.calls.append(call)
            if plan.at is not None:
                plan.failed = call
                if plan.kill:
                    os.kill(child, signal.SIGKILL)
                else:
                    answer = (-plan.error, 0)
    try:
        fcntl.ioctl(listener, SEND, struct.pack("<QqiI", identity, 0, answer[0], answer[1]))
    except OSError as fault:
        if fault.errno != errno.ENOENT:
            raise


def describe(name, process, arguments, folder, number):
    """The call if it concerns the folder, or None."""
    try:
        directory, path = PATHS.get(name, (0, None))
        text = read_text(process, arguments[path]) if path is not None else ""
        if not text.startswith("/"):
            descriptor = AT_FDCWD if directory is None else ctypes.c_int32(arguments[directory]).value
            base = os.readlink(f"/proc/{process}/cwd" if descriptor == AT_FDCWD else f"/proc/{process}/fd/{descriptor}")
            text = base + "/" + text if text else base
    except OSError:
        return None
    if text.startswith("/proc/self/fd/"):
        try:
            text = os.readlink(f"/proc/{process}/fd/{text.split('/')[4]}")
        except OSError:
            return None
    if not text.startswith(folder):
        return None
    flags = arguments[2] if name == "openat" else None
    if name == "openat2":
        try:
            with open(f"/proc/{process}/mem", "rb", 0) as memory:
                memory.seek(arguments[2])
                flags = struct.unpack("<Q", memory.read(8))[0]
        except OSError:
            pass
    return Call(name, text[len(folder):], flags, number)


def read_text(process, address):
    with open(f"/proc/{process}/mem", "rb", 0) as memory:
        text = b""
        while b"\0" not in text and len(text) < 4096:
            memory.seek(address + len(text))
            # Do not read past the page: the next one may not be mapped.
            piece = memory.read(4096 - (address + len(text)) % 4096)
            if not piece:
                break
            text += piece
    return text.split(b"\0")[0].decode(errors="surrogateescape")


def install_filter(seccomp, numbers, action=0x7FC00000):
    """Installs a filter that asks this process about some calls. Returns the descriptor for the requests. With another action than
    SECCOMP_RET_USER_NOTIF there is none."""
    code = [struct.pack("<HBBI", 0x20, 0, 0, 0)]
    for number in numbers:
        code.append(struct.pack("<HBBI", 0x15, 0, 1, number))
        code.append(struct.pack("<HBBI", 0x06, 0, 0, action))
    code.append(struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000))
    program = ctypes.create_string_buffer(b"".join(code))
    header = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(code), ctypes.addressof(program)))
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(38, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    isNotified = action == 0x7FC00000
    listener = library.syscall(seccomp, 1, 8 if isNotified else 0, header)
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return listener
