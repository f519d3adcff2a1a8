#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/fsverity.h>
#include <linux/loop.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

_Static_assert(sizeof(cl_iovec) == sizeof(struct iovec) && offsetof(cl_iovec, length) == offsetof(struct iovec, iov_len), "iovec layout");

const int32_t cl_o_rdonly = O_RDONLY, cl_o_wronly = O_WRONLY, cl_o_rdwr = O_RDWR, cl_o_creat = O_CREAT, cl_o_excl = O_EXCL,
              cl_o_trunc = O_TRUNC, cl_o_append = O_APPEND, cl_o_directory = O_DIRECTORY, cl_o_nofollow = O_NOFOLLOW, cl_o_path = O_PATH,
              cl_o_tmpfile = O_TMPFILE, cl_o_cloexec = O_CLOEXEC, cl_o_nonblock = O_NONBLOCK, cl_o_noctty = O_NOCTTY,
              cl_o_direct = O_DIRECT;
const int32_t cl_at_fdcwd = AT_FDCWD;

#define RETRY(call)                                                                                                                        \
    ({                                                                                                                                     \
        intptr_t result_;                                                                                                                  \
        do                                                                                                                                 \
            result_ = (intptr_t)(call);                                                                                                    \
        while (result_ == -1 && errno == EINTR);                                                                                           \
        result_ == -1 ? -(intptr_t)errno : result_;                                                                                        \
    })

// Copies path bytes into a NUL-terminated string with the given name, on the stack.
#define TERMINATED(name, bytes, length)                                                                                                    \
    char name[PATH_MAX];                                                                                                                   \
    {                                                                                                                                      \
        int copied_ = terminate(name, sizeof name, bytes, length);                                                                         \
        if (copied_ < 0) return copied_;                                                                                                   \
    }

static int terminate(char *out, size_t size, const void *bytes, size_t length) {
    if (length >= size) return -ENAMETOOLONG;
    if (length != 0) {
        if (memchr(bytes, 0, length) != NULL) return -EINVAL;
        memcpy(out, bytes, length);
    }
    out[length] = 0;
    return 0;
}

intptr_t cl_openat(int32_t dir, const void *path, size_t length, int32_t flags, uint32_t mode) {
    TERMINATED(name, path, length)
    return RETRY(openat(dir, name, flags | O_CLOEXEC, (mode_t)mode));
}

intptr_t cl_openat2(int32_t dir, const void *path, size_t length, int32_t flags, uint32_t mode, uint64_t resolve) {
    TERMINATED(name, path, length)
    // struct open_how, declared here because some build hosts have no linux/openat2.h.
    struct {
        uint64_t flags, mode, resolve;
    } how = {(uint64_t)(uint32_t)(flags | O_CLOEXEC), mode, resolve};
    return RETRY(syscall(437, dir, name, &how, sizeof how));
}

intptr_t cl_close(int32_t fd) { return close(fd) == -1 ? -(intptr_t)errno : 0; }
intptr_t cl_dup(int32_t fd) { return RETRY(fcntl(fd, F_DUPFD_CLOEXEC, 0)); }
intptr_t cl_pipe(int32_t fds[2]) { return RETRY(pipe2(fds, O_CLOEXEC)); }
intptr_t cl_read(int32_t fd, void *buffer, size_t count) { return RETRY(read(fd, buffer, count)); }
intptr_t cl_pread(int32_t fd, void *buffer, size_t count, int64_t offset) { return RETRY(pread(fd, buffer, count, offset)); }
intptr_t cl_write(int32_t fd, const void *buffer, size_t count) { return RETRY(write(fd, buffer, count)); }
intptr_t cl_pwrite(int32_t fd, const void *buffer, size_t count, int64_t offset) { return RETRY(pwrite(fd, buffer, count, offset)); }

intptr_t cl_pwrite_uncached(int32_t fd, const void *buffer, size_t count, int64_t offset) {
    // RWF_DONTCACHE (linux/fs.h, Linux 6.14), declared here because the headers of some build hosts are older.
    struct iovec vector = {(void *)buffer, count};
    intptr_t result = RETRY(pwritev2(fd, &vector, 1, offset, 0x80));
    return result == -EOPNOTSUPP ? cl_pwrite(fd, buffer, count, offset) : result;
}

intptr_t cl_writev(int32_t fd, const cl_iovec *vectors, size_t count) {
    return RETRY(writev(fd, (const struct iovec *)vectors, count > IOV_MAX ? IOV_MAX : (int)count));
}

intptr_t cl_lseek(int32_t fd, int64_t offset, int32_t whence) { return RETRY(lseek(fd, offset, whence)); }
intptr_t cl_ftruncate(int32_t fd, int64_t size) { return RETRY(ftruncate(fd, size)); }
intptr_t cl_fallocate(int32_t fd, int32_t mode, int64_t offset, int64_t length) { return RETRY(fallocate(fd, mode, offset, length)); }

intptr_t cl_map_shared(int32_t fd, size_t count, void **base) {
    void *mapped = mmap(NULL, count, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED) return -errno;
    *base = mapped;
    return 0;
}

intptr_t cl_map_resize(void **base, size_t old, size_t count) {
    void *mapped = mremap(*base, old, count, MREMAP_MAYMOVE);
    if (mapped == MAP_FAILED) return -errno;
    *base = mapped;
    return 0;
}

intptr_t cl_map_evict(void *base, size_t count) { return RETRY(madvise(base, count, MADV_DONTNEED)); }
intptr_t cl_unmap(void *base, size_t count) { return RETRY(munmap(base, count)); }

intptr_t cl_copy_file_range(int32_t from, int64_t *fromOffset, int32_t to, int64_t *toOffset, size_t count) {
    return RETRY(copy_file_range(from, (off64_t *)fromOffset, to, (off64_t *)toOffset, count, 0));
}

intptr_t cl_ficlone(int32_t to, int32_t from) { return RETRY(ioctl(to, FICLONE, from)); }

intptr_t cl_ficlonerange(int32_t to, int32_t from, uint64_t fromOffset, uint64_t count, uint64_t toOffset) {
    struct file_clone_range range = {.src_fd = from, .src_offset = fromOffset, .src_length = count, .dest_offset = toOffset};
    return RETRY(ioctl(to, FICLONERANGE, &range));
}

intptr_t cl_start_writeback(int32_t fd, int64_t offset, int64_t length) {
    return RETRY(sync_file_range(fd, offset, length, SYNC_FILE_RANGE_WRITE));
}

intptr_t cl_fadvise(int32_t fd, int64_t offset, int64_t length, int32_t advice) {
    return -(intptr_t)posix_fadvise(fd, offset, length, advice);
}

static intptr_t fill(intptr_t result, const struct stat *from, cl_stat *out) {
    if (result < 0) return result;
    *out = (cl_stat){
        .device = from->st_dev,
        .inode = from->st_ino,
        .links = from->st_nlink,
        .rdev = from->st_rdev,
        .size = (uint64_t)from->st_size,
        .blocks = (uint64_t)from->st_blocks,
        .mode = from->st_mode,
        .uid = from->st_uid,
        .gid = from->st_gid,
        .blockSize = (uint32_t)from->st_blksize,
        .mtimeSeconds = from->st_mtim.tv_sec,
        .ctimeSeconds = from->st_ctim.tv_sec,
        .mtimeNanoseconds = (uint32_t)from->st_mtim.tv_nsec,
        .ctimeNanoseconds = (uint32_t)from->st_ctim.tv_nsec,
        .deviceMajor = major(from->st_dev),
        .deviceMinor = minor(from->st_dev),
        .rdevMajor = major(from->st_rdev),
        .rdevMinor = minor(from->st_rdev),
    };
    return 0;
}

intptr_t cl_fstat(int32_t fd, cl_stat *out) {
    struct stat status;
    return fill(RETRY(fstat(fd, &status)), &status, out);
}

intptr_t cl_fstatat(int32_t dir, const void *path, size_t length, int32_t follow, cl_stat *out) {
    TERMINATED(name, path, length)
    struct stat status;
    return fill(RETRY(fstatat(dir, name, &status, follow ? 0 : AT_SYMLINK_NOFOLLOW)), &status, out);
}

intptr_t cl_faccessat(int32_t dir, const void *path, size_t length, int32_t mode, int32_t effective) {
    TERMINATED(name, path, length)
    return RETRY(faccessat(dir, name, mode, effective ? AT_EACCESS : 0));
}

intptr_t cl_fstatfs(int32_t fd, cl_statfs *out) {
    struct statfs status;
    intptr_t result = RETRY(fstatfs(fd, &status));
    if (result < 0) return result;
    *out = (cl_statfs){
        .type = (uint64_t)status.f_type & 0xffffffff,
        .blockSize = (uint64_t)status.f_bsize,
        .blocks = status.f_blocks,
        .blocksFree = status.f_bfree,
        .blocksAvailable = status.f_bavail,
        .files = status.f_files,
        .filesFree = status.f_ffree,
        .flags = (uint64_t)status.f_flags,
    };
    return 0;
}

intptr_t cl_mkdirat(int32_t dir, const void *path, size_t length, uint32_t mode) {
    TERMINATED(name, path, length)
    return RETRY(mkdirat(dir, name, mode));
}

intptr_t cl_mknodat(int32_t dir, const void *path, size_t length, uint32_t mode, uint32_t major, uint32_t minor) {
    TERMINATED(name, path, length)
    return RETRY(mknodat(dir, name, mode, makedev(major, minor)));
}

intptr_t cl_symlinkat(const void *target, size_t targetLength, int32_t dir, const void *path, size_t length) {
    TERMINATED(to, target, targetLength)
    TERMINATED(name, path, length)
    return RETRY(symlinkat(to, dir, name));
}

intptr_t cl_readlinkat(int32_t dir, const void *path, size_t length, void *buffer, size_t size) {
    TERMINATED(name, path, length)
    return RETRY(readlinkat(dir, name, buffer, size));
}

#define PROC_PATH(name, fd)                                                                                                                \
    char name[32];                                                                                                                         \
    snprintf(name, sizeof name, "/proc/self/fd/%d", (int)(fd));

intptr_t cl_fd_path(int32_t fd, void *buffer, size_t size) {
    PROC_PATH(name, fd)
    return RETRY(readlink(name, buffer, size));
}

intptr_t cl_fd_proc_path(int32_t fd, void *buffer, size_t size) { return snprintf(buffer, size, "/proc/self/fd/%d", (int)fd); }

intptr_t cl_unlinkat(int32_t dir, const void *path, size_t length, int32_t directory) {
    TERMINATED(name, path, length)
    return RETRY(unlinkat(dir, name, directory ? AT_REMOVEDIR : 0));
}

intptr_t cl_renameat2(int32_t fromDir, const void *from, size_t fromLength, int32_t toDir, const void *to, size_t toLength, uint32_t flags) {
    TERMINATED(source, from, fromLength)
    TERMINATED(target, to, toLength)
    // Without flags, use the older call: some file systems (NFS, FUSE) support only that.
    if (flags == 0) return RETRY(renameat(fromDir, source, toDir, target));
    return RETRY(syscall(SYS_renameat2, fromDir, source, toDir, target, flags));
}

intptr_t cl_linkat(int32_t fromDir, const void *from, size_t fromLength, int32_t toDir, const void *to, size_t toLength) {
    TERMINATED(source, from, fromLength)
    TERMINATED(target, to, toLength)
    return RETRY(linkat(fromDir, source, toDir, target, 0));
}

intptr_t cl_link_fd_empty_path(int32_t fd, int32_t toDir, const void *to, size_t toLength) {
    TERMINATED(target, to, toLength)
    return RETRY(linkat(fd, "", toDir, target, AT_EMPTY_PATH));
}

intptr_t cl_link_fd_proc(int32_t fd, int32_t toDir, const void *to, size_t toLength) {
    TERMINATED(target, to, toLength)
    PROC_PATH(source, fd)
    return RETRY(linkat(AT_FDCWD, source, toDir, target, AT_SYMLINK_FOLLOW));
}

intptr_t cl_fchmod(int32_t fd, uint32_t mode) { return RETRY(fchmod(fd, mode)); }

intptr_t cl_fchmodat(int32_t dir, const void *path, size_t length, uint32_t mode) {
    TERMINATED(name, path, length)
    return RETRY(fchmodat(dir, name, mode, 0));
}

intptr_t cl_fchownat(int32_t dir, const void *path, size_t length, uint32_t uid, uint32_t gid) {
    TERMINATED(name, path, length)
    return RETRY(fchownat(dir, name, uid, gid, AT_SYMLINK_NOFOLLOW));
}

intptr_t cl_fchown(int32_t fd, uint32_t uid, uint32_t gid) { return RETRY(fchown(fd, uid, gid)); }

intptr_t cl_utimensat(int32_t dir, const void *path, size_t length, int64_t seconds, uint32_t nanoseconds) {
    TERMINATED(name, path, length)
    struct timespec time = {seconds, nanoseconds}, times[2] = {time, time};
    return RETRY(utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW));
}

intptr_t cl_futimens(int32_t fd, int64_t seconds, uint32_t nanoseconds) {
    struct timespec time = {seconds, nanoseconds}, times[2] = {time, time};
    return RETRY(futimens(fd, times));
}

intptr_t cl_getdents64(int32_t fd, void *buffer, size_t size) { return RETRY(syscall(SYS_getdents64, fd, buffer, size)); }
intptr_t cl_fsync(int32_t fd) { return RETRY(fsync(fd)); }
intptr_t cl_fdatasync(int32_t fd) { return RETRY(fdatasync(fd)); }
intptr_t cl_syncfs(int32_t fd) { return RETRY(syncfs(fd)); }

intptr_t cl_flock(int32_t fd, int32_t operation, int32_t wait) {
    int how = (operation == 1 ? LOCK_SH : operation == 2 ? LOCK_EX : LOCK_UN) | (wait ? 0 : LOCK_NB);
    return RETRY(flock(fd, how));
}

// Writes "/proc/self/fd/DIR/PATH" or, for an empty path, "/proc/self/fd/FD".
static int procEntry(char *out, size_t size, int32_t fd, const void *path, size_t length) {
    int head = snprintf(out, size, "/proc/self/fd/%d%s", (int)fd, length != 0 ? "/" : "");
    return terminate(out + head, size - (size_t)head, path, length);
}

#define XATTR_ENTRY                                                                                                                        \
    char entry[PATH_MAX];                                                                                                                  \
    int made = procEntry(entry, sizeof entry, fd, path, length);                                                                           \
    if (made < 0) return made;

// The name is at most XATTR_NAME_MAX = 255 bytes long.
#define XATTR_NAME                                                                                                                         \
    char key[256];                                                                                                                         \
    if (nameLength >= sizeof key) return -ERANGE;                                                                                          \
    if (terminate(key, sizeof key, name, nameLength) < 0) return -EINVAL;

intptr_t cl_listxattr(int32_t fd, const void *path, size_t length, void *buffer, size_t size) {
    if (length == 0) {
        intptr_t result = RETRY(flistxattr(fd, buffer, size));
        if (result != -EBADF) return result;
    }
    XATTR_ENTRY
    return length == 0 ? RETRY(listxattr(entry, buffer, size)) : RETRY(llistxattr(entry, buffer, size));
}

intptr_t cl_getxattr(int32_t fd, const void *path, size_t length, const void *name, size_t nameLength, void *buffer, size_t size) {
    XATTR_NAME
    if (length == 0) {
        intptr_t result = RETRY(fgetxattr(fd, key, buffer, size));
        if (result != -EBADF) return result;
    }
    XATTR_ENTRY
    return length == 0 ? RETRY(getxattr(entry, key, buffer, size)) : RETRY(lgetxattr(entry, key, buffer, size));
}

intptr_t cl_setxattr(int32_t fd, const void *path, size_t length, const void *name, size_t nameLength, const void *value, size_t size) {
    XATTR_NAME
    if (length == 0) {
        intptr_t result = RETRY(fsetxattr(fd, key, value, size, 0));
        if (result != -EBADF) return result;
    }
    XATTR_ENTRY
    return length == 0 ? RETRY(setxattr(entry, key, value, size, 0)) : RETRY(lsetxattr(entry, key, value, size, 0));
}

intptr_t cl_removexattr(int32_t fd, const void *path, size_t length, const void *name, size_t nameLength) {
    XATTR_NAME
    if (length == 0) {
        intptr_t result = RETRY(fremovexattr(fd, key));
        if (result != -EBADF) return result;
    }
    XATTR_ENTRY
    return length == 0 ? RETRY(removexattr(entry, key)) : RETRY(lremovexattr(entry, key));
}

intptr_t cl_enable_verity(int32_t fd, uint32_t algorithm, const void *signature, size_t signatureSize) {
    struct fsverity_enable_arg argument = {
        .version = 1,
        .hash_algorithm = algorithm,
        .block_size = 4096,
        .sig_size = (uint32_t)signatureSize,
        .sig_ptr = (uintptr_t)signature,
    };
    if (signatureSize > UINT32_MAX) return -EMSGSIZE;
    return RETRY(ioctl(fd, FS_IOC_ENABLE_VERITY, &argument));
}

intptr_t cl_measure_verity(int32_t fd, uint16_t *algorithm, uint8_t digest[64]) {
    union {
        struct fsverity_digest header;
        uint8_t bytes[sizeof(struct fsverity_digest) + 64];
    } argument = {.header = {.digest_size = 64}};
    intptr_t result = RETRY(ioctl(fd, FS_IOC_MEASURE_VERITY, &argument));
    if (result < 0) return result;
    *algorithm = argument.header.digest_algorithm;
    memcpy(digest, argument.bytes + sizeof(struct fsverity_digest), 64);
    return argument.header.digest_size;
}

intptr_t cl_verity_signature(int32_t fd, void *buffer, size_t size) {
    struct fsverity_read_metadata_arg argument = {
        .metadata_type = FS_VERITY_METADATA_TYPE_SIGNATURE,
        .length = size,
        .buf_ptr = (uintptr_t)buffer,
    };
    return RETRY(ioctl(fd, FS_IOC_READ_VERITY_METADATA, &argument));
}

// The mount API by system call number: the numbers are the same on every architecture, and C libraries wrap these calls late or never.
enum { NR_open_tree = 428, NR_move_mount = 429, NR_fsopen = 430, NR_fsconfig = 431, NR_fsmount = 432, NR_mount_setattr = 442 };
enum { CONFIG_FLAG = 0, CONFIG_STRING = 1, CONFIG_FD = 5, CONFIG_CREATE = 6 };

intptr_t cl_fsopen(const char *type) { return RETRY(syscall(NR_fsopen, type, 1 /* FSOPEN_CLOEXEC */)); }

intptr_t cl_fsconfig_string(int32_t fs, const char *key, const void *value, size_t length) {
    TERMINATED(text, value, length)
    return RETRY(syscall(NR_fsconfig, fs, CONFIG_STRING, key, text, 0));
}

intptr_t cl_fsconfig_flag(int32_t fs, const char *key) { return RETRY(syscall(NR_fsconfig, fs, CONFIG_FLAG, key, NULL, 0)); }
intptr_t cl_fsconfig_fd(int32_t fs, const char *key, int32_t fd) { return RETRY(syscall(NR_fsconfig, fs, CONFIG_FD, key, NULL, fd)); }
intptr_t cl_fsconfig_create(int32_t fs) { return RETRY(syscall(NR_fsconfig, fs, CONFIG_CREATE, NULL, NULL, 0)); }
intptr_t cl_fsmount(int32_t fs, uint64_t attributes) { return RETRY(syscall(NR_fsmount, fs, 1 /* FSMOUNT_CLOEXEC */, attributes)); }

intptr_t cl_copy_mounts(int32_t fd) {
    // OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC, AT_RECURSIVE.
    return RETRY(syscall(NR_open_tree, fd, "", AT_EMPTY_PATH | 1 | O_CLOEXEC | 0x8000));
}

intptr_t cl_move_mount(int32_t mount, int32_t toDir, const void *to, size_t toLength) {
    TERMINATED(target, to, toLength)
    // MOVE_MOUNT_F_EMPTY_PATH, and MOVE_MOUNT_T_EMPTY_PATH if the target is an open descriptor.
    return RETRY(syscall(NR_move_mount, mount, "", toDir, target, 0x04 | (toLength == 0 ? 0x40 : 0)));
}

intptr_t cl_mount_setattr(int32_t fd, int32_t recursive, uint64_t set, uint64_t clear, int32_t userNamespace) {
    struct {
        uint64_t set, clear, propagation, userNamespace;
    } attributes = {set, clear, 0, userNamespace < 0 ? 0 : (uint64_t)userNamespace};
    return RETRY(syscall(NR_mount_setattr, fd, "", AT_EMPTY_PATH | (recursive ? 0x8000 : 0), &attributes, sizeof attributes));
}

extern int umount2(const char *target, int flags);

intptr_t cl_umount(int32_t dir, const void *path, size_t length, int32_t flags) {
    if (dir == AT_FDCWD) {
        TERMINATED(name, path, length)
        return RETRY(umount2(name, flags));
    }
    char entry[PATH_MAX];
    int made = procEntry(entry, sizeof entry, dir, path, length);
    if (made < 0) return made;
    return RETRY(umount2(entry, flags));
}

intptr_t cl_unshare_mounts(void) { return RETRY(unshare(CLONE_NEWNS)); }

intptr_t cl_make_mounts_private(const char *path, int32_t recursive) {
    struct {
        uint64_t set, clear, propagation, userNamespace;
    } attributes = {.propagation = 1 << 18 /* MS_PRIVATE */};
    return RETRY(syscall(NR_mount_setattr, AT_FDCWD, path, recursive ? 0x8000 /* AT_RECURSIVE */ : 0, &attributes, sizeof attributes));
}

intptr_t cl_enter_mounts(int32_t fd) { return RETRY(setns(fd, CLONE_NEWNS)); }

static intptr_t mapIDs(pid_t child, const char *file, uint32_t first, uint32_t count) {
    char path[64], line[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)child, file);
    int length = snprintf(line, sizeof line, "0 %u %u", first, count);
    intptr_t map = RETRY(open(path, O_WRONLY | O_CLOEXEC));
    if (map < 0) return map;
    intptr_t result = RETRY(write((int)map, line, (size_t)length));
    close((int)map);
    return result;
}

intptr_t cl_user_namespace(uint32_t first, uint32_t count) {
    int ends[2];
    intptr_t result = RETRY(pipe2(ends, O_CLOEXEC));
    if (result < 0) return result;
    // Only a single-threaded process may enter a new user namespace, and a forked child is one.
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int32_t error = unshare(CLONE_NEWUSER) == 0 ? 0 : errno;
        if (write(ends[1], &error, sizeof error) != sizeof error) _exit(1);
        for (;;) pause();
    }
    result = child < 0 ? -(intptr_t)errno : 0;
    close(ends[1]);
    if (child > 0) {
        int32_t error = EIO;
        if (RETRY(read(ends[0], &error, sizeof error)) != sizeof error) error = EIO;
        result = -(intptr_t)error;
        if (result == 0 && count != 0) result = mapIDs(child, "uid_map", first, count);
        if (result >= 0 && count != 0) result = mapIDs(child, "gid_map", first, count);
        if (result >= 0) {
            char path[64];
            snprintf(path, sizeof path, "/proc/%d/ns/user", (int)child);
            result = RETRY(open(path, O_RDONLY | O_CLOEXEC));
        }
        kill(child, SIGKILL);
        while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {}
    }
    close(ends[0]);
    return result;
}

intptr_t cl_loop_free(int32_t control) { return RETRY(ioctl(control, LOOP_CTL_GET_FREE)); }

intptr_t cl_loop_configure(int32_t loop, int32_t file) {
    struct loop_config configuration = {.fd = (uint32_t)file};
    configuration.info.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR;
    return RETRY(ioctl(loop, LOOP_CONFIGURE, &configuration));
}

// The linux/fuse.h of build hosts lacks backing files (FUSE 7.40).
struct fuse_backing {
    int32_t fd;
    uint32_t flags;
    uint64_t padding;
};
#define FUSE_CLONE _IOR(229, 0, uint32_t)
#define FUSE_BACKING_OPEN _IOW(229, 1, struct fuse_backing)
#define FUSE_BACKING_CLOSE _IOW(229, 2, uint32_t)

intptr_t cl_fuse_clone(int32_t device, int32_t connection) {
    uint32_t argument = (uint32_t)connection;
    return RETRY(ioctl(device, FUSE_CLONE, &argument));
}

intptr_t cl_fuse_backing_open(int32_t device, int32_t file) {
    struct fuse_backing argument = {.fd = file};
    return RETRY(ioctl(device, FUSE_BACKING_OPEN, &argument));
}

intptr_t cl_fuse_backing_close(int32_t device, int32_t backing) {
    uint32_t argument = (uint32_t)backing;
    return RETRY(ioctl(device, FUSE_BACKING_CLOSE, &argument));
}

intptr_t cl_splice(int32_t from, int64_t offset, int32_t to, size_t count) {
    off64_t at = offset;
    return RETRY(splice(from, offset < 0 ? NULL : &at, to, NULL, count, SPLICE_F_MOVE));
}

intptr_t cl_pipe_capacity(int32_t pipe, int32_t size) { return RETRY(fcntl(pipe, F_SETPIPE_SZ, size)); }

intptr_t cl_socketpair(int32_t sockets[2]) { return RETRY(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets)); }

union descriptor_control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
};

intptr_t cl_receive_descriptor(int32_t socket) {
    char byte;
    struct iovec vector = {&byte, 1};
    union descriptor_control control;
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    intptr_t result = RETRY(recvmsg(socket, &message, MSG_CMSG_CLOEXEC));
    if (result < 0) return result;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header == NULL || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS || header->cmsg_len != CMSG_LEN(sizeof(int)))
        return -ENODATA;
    int descriptor;
    memcpy(&descriptor, CMSG_DATA(header), sizeof descriptor);
    return descriptor;
}

intptr_t cl_local_socket(void) { return RETRY(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)); }

static int local_address(struct sockaddr_un *address, const void *path, size_t length) {
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    return terminate(address->sun_path, sizeof address->sun_path, path, length);
}

intptr_t cl_bind_local(int32_t fd, const void *path, size_t length) {
    struct sockaddr_un address;
    int copied = local_address(&address, path, length);
    if (copied < 0) return copied;
    return RETRY(bind(fd, (const struct sockaddr *)&address, sizeof address));
}

intptr_t cl_connect_local(int32_t fd, const void *path, size_t length) {
    struct sockaddr_un address;
    int copied = local_address(&address, path, length);
    if (copied < 0) return copied;
    return RETRY(connect(fd, (const struct sockaddr *)&address, sizeof address));
}

intptr_t cl_listen(int32_t fd, int32_t backlog) { return RETRY(listen(fd, backlog)); }

intptr_t cl_accept(int32_t fd) { return RETRY(accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)); }

intptr_t cl_shut_down(int32_t fd) { return RETRY(shutdown(fd, SHUT_RDWR)); }

intptr_t cl_local_socket_listens(int32_t fd) {
    int domain = 0, type = 0, listens = 0;
    socklen_t size = sizeof domain;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0) return -(intptr_t)errno;
    size = sizeof type;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0) return -(intptr_t)errno;
    if (domain != AF_UNIX || type != SOCK_STREAM) return -EPROTOTYPE;
    size = sizeof listens;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0) return -(intptr_t)errno;
    return listens != 0;
}

// SCM_MAX_FD of the kernel.
enum { most_descriptors = 253 };

union descriptors_control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(most_descriptors * sizeof(int))];
};

intptr_t cl_send_with_descriptors(int32_t fd, const void *buffer, size_t count, const int32_t *descriptors, size_t descriptorCount) {
    if (descriptorCount > most_descriptors) return -EINVAL;
    struct iovec vector = {(void *)buffer, count};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    union descriptors_control control;
    if (descriptorCount > 0) {
        memset(&control, 0, sizeof control);
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(descriptorCount * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(descriptorCount * sizeof(int));
        memcpy(CMSG_DATA(header), descriptors, descriptorCount * sizeof(int));
    }
    return RETRY(sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT));
}

intptr_t cl_receive_with_descriptors(
    int32_t fd, void *buffer, size_t count, int32_t descriptors[253], size_t *descriptorCount, int32_t *truncated) {
    struct iovec vector = {buffer, count};
    union descriptors_control control;
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    *descriptorCount = 0;
    *truncated = 0;
    intptr_t result = RETRY(recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT));
    if (result < 0) return result;
    *truncated = (message.msg_flags & MSG_CTRUNC) != 0;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header != NULL; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
        size_t received = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        if (received > most_descriptors - *descriptorCount) received = most_descriptors - *descriptorCount;
        memcpy(descriptors + *descriptorCount, CMSG_DATA(header), received * sizeof(int));
        *descriptorCount += received;
    }
    return result;
}

const int16_t cl_poll_in = POLLIN, cl_poll_out = POLLOUT, cl_poll_ended = POLLHUP | POLLERR | POLLNVAL;
_Static_assert(
    sizeof(cl_poll_entry) == sizeof(struct pollfd) && offsetof(cl_poll_entry, returned) == offsetof(struct pollfd, revents), "pollfd layout");

intptr_t cl_poll(cl_poll_entry *entries, size_t count, int32_t milliseconds) {
    return RETRY(poll((struct pollfd *)entries, count, milliseconds));
}

intptr_t cl_set_nonblocking(int32_t fd) {
    intptr_t flags = RETRY(fcntl(fd, F_GETFL));
    if (flags < 0) return flags;
    return RETRY(fcntl(fd, F_SETFL, (int)flags | O_NONBLOCK));
}

intptr_t cl_spawn(const char *program, char *const argv[], char *const envp[], int32_t inherited, int32_t session, int32_t quiet) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int error = posix_spawn_file_actions_init(&actions);
    if (error != 0) return -(intptr_t)error;
    error = posix_spawnattr_init(&attributes);
    if (error != 0) {
        posix_spawn_file_actions_destroy(&actions);
        return -(intptr_t)error;
    }
    // This is the first action, because `inherited` may itself be 0, 1 or 2. dup2 of 3 onto itself clears close-on-exec here.
    if (error == 0 && inherited >= 0) error = posix_spawn_file_actions_adddup2(&actions, inherited, 3);
    if (error == 0) error = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    if (error == 0 && quiet) error = posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    if (error == 0) error = posix_spawn_file_actions_addclosefrom_np(&actions, inherited >= 0 ? 4 : 3);
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    if (error == 0) error = posix_spawnattr_setsigmask(&attributes, &none);
    if (error == 0) error = posix_spawnattr_setsigdefault(&attributes, &all);
    if (error == 0) error = posix_spawnattr_setflags(
        &attributes, (short)(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | (session ? POSIX_SPAWN_SETSID : 0)));
    pid_t process = 0;
    if (error == 0) error = posix_spawnp(&process, program, &actions, &attributes, argv, envp);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return error != 0 ? -(intptr_t)error : process;
}

int32_t cl_spawn_close_from(void *actions, int32_t first) { return posix_spawn_file_actions_addclosefrom_np(actions, first); }

intptr_t cl_wait(int32_t process) {
    int status;
    intptr_t result = RETRY(waitpid(process, &status, 0));
    if (result < 0) return result;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

intptr_t cl_replace_descriptor(int32_t from, int32_t to) { return RETRY(dup2(from, to)); }

intptr_t cl_chdir(const void *path, size_t length) {
    TERMINATED(name, path, length)
    return RETRY(chdir(name));
}

intptr_t cl_fill_standard_descriptors(void) {
    for (int number = 0; number < 3; number++) {
        if (fcntl(number, F_GETFD) >= 0 || errno != EBADF) continue;
        // open returns the lowest free number. The access mode is the wrong one on purpose, so that using the descriptor remains an error.
        intptr_t result = RETRY(open("/dev/null", number == 0 ? O_WRONLY : O_RDONLY));
        if (result < 0) return result;
    }
    return 0;
}

int32_t cl_is_ignored(int32_t signal) {
    struct sigaction action;
    return sigaction(signal, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

// The signals among SIGINT, SIGTERM and SIGHUP that the process does not ignore. If an ignored signal were blocked, the kernel would keep
// it.
static sigset_t end_signals(void) {
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        if (!cl_is_ignored(signals[i])) sigaddset(&set, signals[i]);
    return set;
}

intptr_t cl_block_end_signals(void) {
    sigset_t set = end_signals();
    return -(intptr_t)pthread_sigmask(SIG_BLOCK, &set, NULL);
}

intptr_t cl_wait_end_signal(void) {
    sigset_t set = end_signals();
    return RETRY(sigwaitinfo(&set, NULL));
}

void cl_map_large_blocks(int32_t size) { (void)mallopt(M_MMAP_THRESHOLD, size); }

intptr_t cl_raise_descriptor_limit(void) {
    struct rlimit limit;
    intptr_t result = RETRY(getrlimit(RLIMIT_NOFILE, &limit));
    if (result < 0) return result;
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) limit.rlim_cur = before;
    return limit.rlim_cur > INT_MAX ? INT_MAX : (intptr_t)limit.rlim_cur;
}

intptr_t cl_descriptor_limit(void) {
    struct rlimit limit;
    intptr_t result = RETRY(getrlimit(RLIMIT_NOFILE, &limit));
    if (result < 0) return result;
    return limit.rlim_cur > INT_MAX ? INT_MAX : (intptr_t)limit.rlim_cur;
}

void cl_grow_descriptor_table(int32_t count) {
    int fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, count - 1);
    if (fd >= 0) close(fd);
}

char **cl_environment_list(void) { return environ; }

intptr_t cl_processor_count(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 ? count : 1;
}

intptr_t cl_has_capability(uint32_t capability) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct data[2] = {{0, 0, 0}, {0, 0, 0}};
    if (capability > 63) return 0;
    intptr_t result = RETRY(syscall(SYS_capget, &header, data));
    if (result < 0) return result;
    return (data[capability / 32].effective >> (capability % 32)) & 1;
}

intptr_t cl_machine(char *buffer, size_t size) {
    struct utsname name;
    intptr_t result = RETRY(uname(&name));
    if (result < 0) return result;
    snprintf(buffer, size, "%s", name.machine);
    return 0;
}

static intptr_t readClock(clockid_t which, int64_t *seconds, uint32_t *nanoseconds) {
    struct timespec time;
    intptr_t result = RETRY(clock_gettime(which, &time));
    if (result < 0) return result;
    *seconds = time.tv_sec;
    *nanoseconds = (uint32_t)time.tv_nsec;
    return 0;
}

intptr_t cl_realtime(int64_t *seconds, uint32_t *nanoseconds) { return readClock(CLOCK_REALTIME, seconds, nanoseconds); }
intptr_t cl_monotonic(int64_t *seconds, uint32_t *nanoseconds) { return readClock(CLOCK_MONOTONIC, seconds, nanoseconds); }

intptr_t cl_sleep(int64_t nanoseconds) {
    struct timespec rest = {nanoseconds / 1000000000, nanoseconds % 1000000000};
    int error;
    do
        error = clock_nanosleep(CLOCK_MONOTONIC, 0, &rest, &rest);
    while (error == EINTR);
    return -(intptr_t)error;
}

uint32_t cl_effective_uid(void) { return geteuid(); }
uint32_t cl_effective_gid(void) { return getegid(); }
int32_t cl_process_id(void) { return getpid(); }
const char *cl_environment(const char *name) { return getenv(name); }

void cl_set_thread_name(const char *name) {
    char text[16];
    snprintf(text, sizeof text, "%s", name);
    pthread_setname_np(pthread_self(), text);
}

void cl_error_text(int32_t error, char *buffer, size_t size) {
    // The strerror_r of _GNU_SOURCE may return a constant string instead of filling the buffer.
    char own[128];
    snprintf(buffer, size, "%s", strerror_r(error, own, sizeof own));
}

int32_t cl_is_zero(const void *bytes, size_t count) {
    const unsigned char *at = bytes;
    // If the bytes equal themselves shifted by one, all of them equal the first byte.
    return count == 0 || (at[0] == 0 && memcmp(at, at + 1, count - 1) == 0);
}
