"""Tries to change a read-only tree in every way, for every kind of file. Prints one line per attempt: the call and its result.

These are the calls of POSIX and Linux that change files, names and attributes. Calls that may succeed change nothing: opening a pipe or a
device, opening an existing file with O_CREAT, fsync, flock. The tree has `file`, `hard` (another name of it), `empty` and
`full` (directories, with `below` in the second one), `link`, `pipe`, `null` (a device) and `socket`.
"""

import ctypes
import errno
import fcntl
import os
import socket
import stat
import sys

root = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
AT_FDCWD, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH = -100, 0x100, 0x1000
# Numbers for x86-64 and for all others; fchmodat2 has the same number everywhere.
numbers = {"renameat2": (316, 276), "linkat": (265, 37), "fchmodat2": (452, 452), "fallocate": (285, 47)}
index = 0 if os.uname().machine == "x86_64" else 1

OPENS = (
    "O_WRONLY",
    "O_RDWR",
    "O_RDONLY|O_TRUNC",
    "O_WRONLY|O_APPEND",
    "O_RDONLY|O_CREAT",
    "O_RDWR|O_CREAT|O_TRUNC",
    "O_RDWR|O_CREAT|O_EXCL",
)
# Number and length of the argument: linux/fs.h, linux/fsverity.h.
IOCTLS = {
    "FS_IOC_SETFLAGS": (0x40086602, 8),
    "FS_IOC_FSSETXATTR": (0x401C5820, 28),
    "FS_IOC_ENABLE_VERITY": (0x40806685, 128),
    "FITRIM": (0xC0185879, 24),
    "FS_IOC_SETVERSION": (0x40087602, 8),
}


def call(name, *arguments):
    arguments = [ctypes.c_long(value) if isinstance(value, int) else ctypes.c_char_p(os.fsencode(value)) for value in arguments]
    if libc.syscall(ctypes.c_long(numbers[name][index]), *arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


def attempt(name, body):
    try:
        result = body()
        if isinstance(result, int) and not isinstance(result, bool):
            os.close(result)
        print(f"{name}: done")
    except OSError as error:
        print(f"{name}: {errno.errorcode[error.errno]}")


def reopen(descriptor, flags):
    os.close(os.open(f"/proc/self/fd/{descriptor}", flags))


def using(path, flags, body):
    def run():
        descriptor = os.open(path, flags)
        try:
            body(descriptor)
        finally:
            os.close(descriptor)
    return run


def writable(path):
    if libc.access(os.fsencode(path), os.W_OK) < 0:
        raise OSError(ctypes.get_errno(), "access")


def bind(path):
    with socket.socket(socket.AF_UNIX) as one:
        folder = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            one.bind(f"/proc/self/fd/{folder}/new")
        finally:
            os.close(folder)


kinds = ["file", "hard", "empty", "full", "link", "pipe", "null", "socket", ""]
for kind in kinds:
    path = os.path.join(root, kind) if kind else root
    name = kind or "root"
    mode = os.lstat(path).st_mode
    is_directory, is_link, is_file = stat.S_ISDIR(mode), stat.S_ISLNK(mode), stat.S_ISREG(mode)
    new = os.path.join(path, "new") if is_directory else path + "-new"
    beside = path + "-new"
    if kind:
        attempt(f"{name} unlink", lambda: os.rmdir(path) if is_directory else os.unlink(path))
        attempt(f"{name} rename", lambda: os.rename(path, beside))
        attempt(f"{name} rename below", lambda: os.rename(path, os.path.join(root, "full", "moved")))
        attempt(f"{name} rename to itself", lambda: os.rename(path, path))
        if not is_directory:
            attempt(f"{name} rename over", lambda: os.rename(path, os.path.join(root, "full/below")))
        attempt(f"{name} renameat2 RENAME_NOREPLACE", lambda: call("renameat2", AT_FDCWD, path, AT_FDCWD, beside, 1))
        attempt(f"{name} renameat2 RENAME_EXCHANGE", lambda: call("renameat2", AT_FDCWD, path, AT_FDCWD, os.path.join(root, "full"), 2))
        attempt(f"{name} renameat2 RENAME_WHITEOUT", lambda: call("renameat2", AT_FDCWD, path, AT_FDCWD, beside, 4))
        attempt(f"{name} link", lambda: os.link(path, beside, follow_symlinks=False))
        by_descriptor = using(path, os.O_PATH | os.O_NOFOLLOW, lambda it: call("linkat", it, "", AT_FDCWD, beside, AT_EMPTY_PATH))
        attempt(f"{name} linkat AT_EMPTY_PATH", by_descriptor)
        attempt(f"{name} mkdir over", lambda: os.mkdir(path))
        attempt(f"{name} symlink over", lambda: os.symlink("x", path))
        attempt(f"{name} mknod over", lambda: os.mknod(path))
    if not is_link:
        attempt(f"{name} chmod", lambda: os.chmod(path, 0o711))
        attempt(f"{name} access W_OK", lambda: writable(path))
        attempt(f"{name} utime", lambda: os.utime(path, (1, 2)))
    attempt(f"{name} fchmodat2 AT_SYMLINK_NOFOLLOW", lambda: call("fchmodat2", AT_FDCWD, path, 0o711, AT_SYMLINK_NOFOLLOW))
    attempt(f"{name} chown", lambda: os.chown(path, 1, 2, follow_symlinks=False))
    attempt(f"{name} chown to nobody else", lambda: os.chown(path, -1, -1, follow_symlinks=False))
    attempt(f"{name} utimensat", lambda: os.utime(path, ns=(1, 2), follow_symlinks=False))
    attempt(f"{name} utimensat now", lambda: os.utime(path, follow_symlinks=False))
    for attribute in ("user.x", "trusted.x", "security.x", "trusted.overlay.opaque"):
        attempt(f"{name} lsetxattr {attribute}", lambda: os.setxattr(path, attribute, b"y", follow_symlinks=False))
        attempt(f"{name} lremovexattr {attribute}", lambda: os.removexattr(path, attribute, follow_symlinks=False))
    for flags in OPENS:
        value = os.O_NONBLOCK | os.O_NOFOLLOW
        for flag in flags.split("|"):
            value |= getattr(os, flag)
        attempt(f"{name} open {flags}", lambda: os.open(path, value, 0o600))
    attempt(f"{name} truncate", lambda: os.truncate(path, 1))
    if is_directory:
        attempt(f"{name} create in it", lambda: os.open(new, os.O_WRONLY | os.O_CREAT, 0o600))
        attempt(f"{name} create for reading in it", lambda: os.open(new, os.O_RDONLY | os.O_CREAT, 0o600))
        attempt(f"{name} O_TMPFILE", lambda: os.open(path, os.O_RDWR | os.O_TMPFILE, 0o600))
        attempt(f"{name} mkdir in it", lambda: os.mkdir(new))
        attempt(f"{name} symlink in it", lambda: os.symlink("x", new))
        attempt(f"{name} bind in it", lambda: bind(new))
        for kind_of_node in ("S_IFREG", "S_IFIFO", "S_IFSOCK", "S_IFCHR", "S_IFBLK"):
            attempt(f"{name} mknod {kind_of_node} in it", lambda: os.mknod(new, getattr(stat, kind_of_node) | 0o600, os.makedev(1, 3)))
        attempt(f"{name} mknod whiteout in it", lambda: os.mknod(new, stat.S_IFCHR, 0))
        attempt(f"{name} unlink what is not there", lambda: os.unlink(new))
        attempt(f"{name} create below what is not there", lambda: os.mkdir(new + "/x"))
    if is_directory or is_file:
        reading = os.O_RDONLY
        attempt(f"{name} fchmod", using(path, reading, lambda it: os.fchmod(it, 0o711)))
        attempt(f"{name} fchown", using(path, reading, lambda it: os.fchown(it, 1, 2)))
        attempt(f"{name} futimens", using(path, reading, lambda it: os.utime(it, ns=(1, 2))))
        attempt(f"{name} fsetxattr", using(path, reading, lambda it: os.setxattr(it, "user.x", b"y")))
        attempt(f"{name} fremovexattr", using(path, reading, lambda it: os.removexattr(it, "user.x")))
        attempt(f"{name} fsync", using(path, reading, lambda it: os.fsync(it)))
        attempt(f"{name} flock", using(path, reading, lambda it: fcntl.flock(it, fcntl.LOCK_EX | fcntl.LOCK_NB)))
        # No file system here supports some of these; the others are refused as read-only. None may succeed.
        for command, (number, size) in IOCTLS.items():
            argument = bytearray(size)
            if command == "FS_IOC_ENABLE_VERITY":
                argument[0], argument[4], argument[9] = 1, 1, 16
            attempt(f"{name} ioctl {command}", using(path, reading, lambda it: fcntl.ioctl(it, number, argument)))
    if is_file:
        attempt(f"{name} ftruncate of what is read", using(path, os.O_RDONLY, lambda it: os.ftruncate(it, 0)))
        attempt(f"{name} fallocate of what is read", using(path, os.O_RDONLY, lambda it: call("fallocate", it, 0, 0, 10)))
        attempt(f"{name} fallocate punch of what is read", using(path, os.O_RDONLY, lambda it: call("fallocate", it, 3, 0, 10)))
        attempt(f"{name} write to what is read", using(path, os.O_RDONLY, lambda it: os.write(it, b"x") and None))
        attempt(f"{name} opened again for writing", using(path, os.O_RDONLY, lambda it: reopen(it, os.O_RDWR)))
        attempt(f"{name} opened again from O_PATH", using(path, os.O_PATH, lambda it: reopen(it, os.O_WRONLY | os.O_TRUNC)))
        attempt(f"{name} truncated through /proc", using(path, os.O_RDONLY, lambda it: os.truncate(f"/proc/self/fd/{it}", 0)))
