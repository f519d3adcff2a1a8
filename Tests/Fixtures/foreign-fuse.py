#!/usr/bin/env python3
"""Mounts with FUSE what another program would: a source that is no image ID, and files that the server has open. Answers no request. Needs root.

usage: foreign-fuse.py TARGET SOURCE [FILE…]     a FILE after "map:" is mapped instead of being held open
Prints `ready`, then unmounts at the end of standard input.
"""
import ctypes, mmap, os, sys

target, source, files = sys.argv[1], sys.argv[2], sys.argv[3:]
libc = ctypes.CDLL(None, use_errno=True)
device = os.open("/dev/fuse", os.O_RDWR)
held = []
for path in files:
    file = os.open(path.removeprefix("map:"), os.O_RDONLY)
    if path.startswith("map:"):
        held.append(mmap.mmap(file, 0, prot=mmap.PROT_READ))
        os.close(file)
        # Python keeps a duplicate of the descriptor.
        for number in os.listdir("/proc/self/fd"):
            if os.path.exists("/proc/self/fd/" + number) and os.path.samefile("/proc/self/fd/" + number, path.removeprefix("map:")):
                os.close(int(number))
    else:
        held.append(file)
options = "fd=%d,rootmode=40000,user_id=0,group_id=0" % device
if libc.mount(source.encode(), target.encode(), b"fuse.other", 0, options.encode()) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
print("ready", flush=True)
sys.stdin.read()
libc.umount2(target.encode(), 2)
