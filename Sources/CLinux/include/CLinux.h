// Thin shims over Linux system calls that Swift cannot import (variadic, macros, structures behind feature macros).
//
// Every function returns a value >= 0, or -errno. EINTR is retried here, except in close. Paths come as bytes with their
// length and are copied to the stack: a path with a NUL in it is -EINVAL, one longer than PATH_MAX - 1 is -ENAMETOOLONG.
// No policy, no allocation.
#ifndef CLINUX_H
#define CLINUX_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t device, inode, links, rdev, size, blocks;
    uint32_t mode, uid, gid, blockSize;
    int64_t mtimeSeconds, ctimeSeconds;
    uint32_t mtimeNanoseconds, ctimeNanoseconds;
    uint32_t deviceMajor, deviceMinor, rdevMajor, rdevMinor;
} cl_stat;

typedef struct {
    uint64_t type, blockSize, blocks, blocksFree, blocksAvailable, files, filesFree, flags;
} cl_statfs;

typedef struct {
    const void *base;
    size_t length;
} cl_iovec;

// open(2) flags differ between architectures.
extern const int32_t cl_o_rdonly, cl_o_wronly, cl_o_rdwr, cl_o_creat, cl_o_excl, cl_o_trunc, cl_o_append, cl_o_directory, cl_o_nofollow,
    cl_o_path, cl_o_tmpfile, cl_o_cloexec, cl_o_nonblock, cl_o_noctty, cl_o_direct;
extern const int32_t cl_at_fdcwd;

intptr_t cl_openat(int32_t dir, const void *path, size_t length, int32_t flags, uint32_t mode);
intptr_t cl_openat2(int32_t dir, const void *path, size_t length, int32_t flags, uint32_t mode, uint64_t resolve);
intptr_t cl_close(int32_t fd);
intptr_t cl_dup(int32_t fd);
intptr_t cl_pipe(int32_t fds[2]);
intptr_t cl_read(int32_t fd, void *buffer, size_t count);
intptr_t cl_pread(int32_t fd, void *buffer, size_t count, int64_t offset);
intptr_t cl_write(int32_t fd, const void *buffer, size_t count);
intptr_t cl_pwrite(int32_t fd, const void *buffer, size_t count, int64_t offset);
// pwrite whose bytes leave the page cache as soon as they are on the disk, where the kernel and the file system can do that.
intptr_t cl_pwrite_uncached(int32_t fd, const void *buffer, size_t count, int64_t offset);
// At most 1024 vectors (IOV_MAX) are used; writes as writev does, possibly less than all.
intptr_t cl_writev(int32_t fd, const cl_iovec *vectors, size_t count);
intptr_t cl_lseek(int32_t fd, int64_t offset, int32_t whence);
intptr_t cl_ftruncate(int32_t fd, int64_t size);
intptr_t cl_fallocate(int32_t fd, int32_t mode, int64_t offset, int64_t length);
intptr_t cl_copy_file_range(int32_t from, int64_t *fromOffset, int32_t to, int64_t *toOffset, size_t count);
intptr_t cl_ficlone(int32_t to, int32_t from);
intptr_t cl_fadvise(int32_t fd, int64_t offset, int64_t length, int32_t advice);

intptr_t cl_fstat(int32_t fd, cl_stat *out);
intptr_t cl_fstatat(int32_t dir, const void *path, size_t length, int32_t follow, cl_stat *out);
intptr_t cl_faccessat(int32_t dir, const void *path, size_t length, int32_t mode, int32_t effective);
intptr_t cl_fstatfs(int32_t fd, cl_statfs *out);
intptr_t cl_mkdirat(int32_t dir, const void *path, size_t length, uint32_t mode);
intptr_t cl_mknodat(int32_t dir, const void *path, size_t length, uint32_t mode, uint32_t major, uint32_t minor);
intptr_t cl_symlinkat(const void *target, size_t targetLength, int32_t dir, const void *path, size_t length);
intptr_t cl_readlinkat(int32_t dir, const void *path, size_t length, void *buffer, size_t size);
// The kernel's name for an open descriptor (readlink of /proc/self/fd/N).
intptr_t cl_fd_path(int32_t fd, void *buffer, size_t size);
// Writes "/proc/self/fd/N"; returns its length.
intptr_t cl_fd_proc_path(int32_t fd, void *buffer, size_t size);
intptr_t cl_unlinkat(int32_t dir, const void *path, size_t length, int32_t directory);
intptr_t cl_renameat2(int32_t fromDir, const void *from, size_t fromLength, int32_t toDir, const void *to, size_t toLength, uint32_t flags);
intptr_t cl_linkat(int32_t fromDir, const void *from, size_t fromLength, int32_t toDir, const void *to, size_t toLength);
// Names an open file; needs CAP_DAC_READ_SEARCH or (since 6.10) the opener's credentials.
intptr_t cl_link_fd_empty_path(int32_t fd, int32_t toDir, const void *to, size_t toLength);
// The same through /proc/self/fd, for everybody.
intptr_t cl_link_fd_proc(int32_t fd, int32_t toDir, const void *to, size_t toLength);
intptr_t cl_fchmod(int32_t fd, uint32_t mode);
intptr_t cl_fchmodat(int32_t dir, const void *path, size_t length, uint32_t mode);
intptr_t cl_fchownat(int32_t dir, const void *path, size_t length, uint32_t uid, uint32_t gid);
intptr_t cl_fchown(int32_t fd, uint32_t uid, uint32_t gid);
intptr_t cl_utimensat(int32_t dir, const void *path, size_t length, int64_t seconds, uint32_t nanoseconds);
intptr_t cl_futimens(int32_t fd, int64_t seconds, uint32_t nanoseconds);
intptr_t cl_getdents64(int32_t fd, void *buffer, size_t size);
intptr_t cl_fsync(int32_t fd);
intptr_t cl_fdatasync(int32_t fd);
intptr_t cl_syncfs(int32_t fd);
// operation: 1 shared, 2 exclusive, 8 unlock; wait == 0 gives -EWOULDBLOCK.
intptr_t cl_flock(int32_t fd, int32_t operation, int32_t wait);

// Extended attributes. With a path: of the entry itself (symlinks are not followed), reached as /proc/self/fd/DIR/PATH.
// Without (length 0): of the open file; a descriptor of O_PATH works too.
intptr_t cl_listxattr(int32_t fd, const void *path, size_t length, void *buffer, size_t size);
intptr_t cl_getxattr(int32_t fd, const void *path, size_t length, const void *name, size_t nameLength, void *buffer, size_t size);
intptr_t cl_setxattr(int32_t fd, const void *path, size_t length, const void *name, size_t nameLength, const void *value, size_t size);
intptr_t cl_removexattr(int32_t fd, const void *path, size_t length, const void *name, size_t nameLength);

// fs-verity (linux/fsverity.h): block size 4096, no salt. signature may be null.
intptr_t cl_enable_verity(int32_t fd, uint32_t algorithm, const void *signature, size_t signatureSize);
// Returns the digest's size; digest has room for 64 bytes.
intptr_t cl_measure_verity(int32_t fd, uint16_t *algorithm, uint8_t digest[64]);
// The file's built-in signature; its length, at most size. -ENODATA where there is none.
intptr_t cl_verity_signature(int32_t fd, void *buffer, size_t size);

// Mount API.
intptr_t cl_fsopen(const char *type);
intptr_t cl_fsconfig_string(int32_t fs, const char *key, const void *value, size_t length);
intptr_t cl_fsconfig_flag(int32_t fs, const char *key);
intptr_t cl_fsconfig_fd(int32_t fs, const char *key, int32_t fd);
intptr_t cl_fsconfig_create(int32_t fs);
intptr_t cl_fsmount(int32_t fs, uint64_t attributes);
intptr_t cl_move_mount(int32_t mount, int32_t toDir, const void *to, size_t toLength);
intptr_t cl_mount_setattr(int32_t fd, int32_t recursive, uint64_t set, uint64_t clear, int32_t userNamespace);
intptr_t cl_umount(int32_t dir, const void *path, size_t length, int32_t flags);
// Gives the calling thread mounts of its own, copies of all there are.
intptr_t cl_unshare_mounts(void);
// Nothing spreads from or to the mount whose root this is any more; -EINVAL where it is no mount's root.
intptr_t cl_make_mounts_private(const char *path, int32_t recursive);
// Moves the calling thread into a mount namespace; EINVAL where another thread shares its directories.
intptr_t cl_enter_mounts(int32_t fd);
#define CL_MOUNT_ATTR_RDONLY 0x01
#define CL_MOUNT_ATTR_NOSUID 0x02
#define CL_MOUNT_ATTR_NODEV 0x04
#define CL_MOUNT_ATTR_NOEXEC 0x08
#define CL_MOUNT_ATTR_NOATIME 0x10
#define CL_MOUNT_ATTR_STRICTATIME 0x20
#define CL_MOUNT_ATTR_ATIME_MASK 0x70
#define CL_MOUNT_ATTR_NODIRATIME 0x80
#define CL_MOUNT_ATTR_NOSYMFOLLOW 0x00200000
#define CL_MOUNT_ATTR_IDMAP 0x00100000
#define CL_MNT_DETACH 2
#define CL_UMOUNT_NOFOLLOW 8

// A user namespace without a process in it, in which the ids from 0 on are the caller's from first on, count of them; with count 0 it
// maps nothing. Returns a descriptor of it. A child process makes it and is gone when this returns.
intptr_t cl_user_namespace(uint32_t first, uint32_t count);
// The version of Landlock's interface, 1 or more; -ENOSYS or -EOPNOTSUPP where there is none.
intptr_t cl_landlock_version(void);

// Loop devices: the number of a free one; configuring it read-only with automatic detaching.
intptr_t cl_loop_free(int32_t control);
intptr_t cl_loop_configure(int32_t loop, int32_t file);

// FUSE (linux/fuse.h).
// Lets a second descriptor of /dev/fuse serve the connection of the first.
intptr_t cl_fuse_clone(int32_t device, int32_t connection);
// A file that the kernel reads from by itself; returns its number for open replies.
intptr_t cl_fuse_backing_open(int32_t device, int32_t file);
intptr_t cl_fuse_backing_close(int32_t device, int32_t backing);

// Moves bytes of a file at an offset into a pipe, or (offset < 0) of a pipe elsewhere, without copying them where possible.
intptr_t cl_splice(int32_t from, int64_t offset, int32_t to, size_t count);
// Sets a pipe's capacity in bytes; returns what it is then.
intptr_t cl_pipe_capacity(int32_t pipe, int32_t size);

// Processes, descriptors of others, signals.
intptr_t cl_socketpair(int32_t sockets[2]);
// Receives one descriptor over a socket; -ENODATA where none came.
intptr_t cl_receive_descriptor(int32_t socket);
// Starts a program (found by PATH where it has no slash) in a session of its own if `session`, with descriptor 3 a duplicate of `inherited`
// (if >= 0), 0 and (if `quiet`) 1 /dev/null, 2 as it is and all others closed. Returns the process's number.
intptr_t cl_spawn(const char *program, char *const argv[], char *const envp[], int32_t inherited, int32_t session, int32_t quiet);
// posix_spawn_file_actions_addclosefrom_np(3), which Glibc's module leaves out; `actions` is a posix_spawn_file_actions_t.
int32_t cl_spawn_close_from(void *actions, int32_t first);
// Waits for a child; returns its exit status, 128 + signal where one ended it.
intptr_t cl_wait(int32_t process);
// Points a descriptor of the process at another open file (dup2).
intptr_t cl_replace_descriptor(int32_t from, int32_t to);
intptr_t cl_chdir(const void *path, size_t length);
// Opens /dev/null for each of 0, 1 and 2 that is closed; reading it as input and writing it as output stays an error.
intptr_t cl_fill_standard_descriptors(void);
// Whether the process ignores a signal.
int32_t cl_is_ignored(int32_t signal);
// SIGINT, SIGTERM and SIGHUP, but those that are ignored: blocked in this thread and those it starts from now on; waited for.
intptr_t cl_block_end_signals(void);
intptr_t cl_wait_end_signal(void);
// Raises the number of descriptors that this process may have to all that it is allowed; returns it.
intptr_t cl_raise_descriptor_limit(void);
// From now on the heap's blocks of at least `size` bytes are mapped, and go back to the kernel when they are freed (mallopt(3)).
void cl_map_large_blocks(int32_t size);
// The arguments that the process was started with, its name first; NULL past the last one.
size_t cl_argument_count(void);
const char *cl_argument(size_t index);
// The process's environment and arguments, ended by a null pointer.
char **cl_environment_list(void);

// Host.
intptr_t cl_processor_count(void);
intptr_t cl_has_capability(uint32_t capability);
intptr_t cl_machine(char *buffer, size_t size);
intptr_t cl_realtime(int64_t *seconds, uint32_t *nanoseconds);
intptr_t cl_monotonic(int64_t *seconds, uint32_t *nanoseconds);
intptr_t cl_sleep(int64_t nanoseconds);
uint32_t cl_effective_uid(void);
uint32_t cl_effective_gid(void);
int32_t cl_process_id(void);
const char *cl_environment(const char *name);
void cl_set_thread_name(const char *name);
// The message of an errno, "No such file or directory"; always terminated.
void cl_error_text(int32_t error, char *buffer, size_t size);

// Whether all bytes are zero.
int32_t cl_is_zero(const void *bytes, size_t count);

#endif
