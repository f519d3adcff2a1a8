// Thin wrappers around Linux system calls that Swift cannot import: variadic functions, macros, and structures behind feature macros.
//
// Every function returns a value >= 0, or -errno. EINTR is retried here, except in close. Paths are passed as bytes with a
// length and copied to the stack: a path that contains a NUL gives -EINVAL, one longer than PATH_MAX - 1 gives -ENAMETOOLONG.
// This module contains no policy and allocates no memory.
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

// Flags of open(2); their values differ between architectures.
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
// pwrite that asks the kernel to drop the pages from the page cache once they are written (RWF_DONTCACHE), if it supports that.
intptr_t cl_pwrite_uncached(int32_t fd, const void *buffer, size_t count, int64_t offset);
// Uses at most 1024 vectors (IOV_MAX). Like writev, it may write less than all bytes.
intptr_t cl_writev(int32_t fd, const cl_iovec *vectors, size_t count);
intptr_t cl_lseek(int32_t fd, int64_t offset, int32_t whence);
intptr_t cl_ftruncate(int32_t fd, int64_t size);
intptr_t cl_fallocate(int32_t fd, int32_t mode, int64_t offset, int64_t length);

// Shared mappings of files, for reading and writing.
intptr_t cl_map_shared(int32_t fd, size_t count, void **base);
// May move the mapping.
intptr_t cl_map_resize(void **base, size_t old, size_t count);
// Takes the pages out of the process. The file keeps what was written.
intptr_t cl_map_evict(void *base, size_t count);
intptr_t cl_unmap(void *base, size_t count);
intptr_t cl_copy_file_range(int32_t from, int64_t *fromOffset, int32_t to, int64_t *toOffset, size_t count);
intptr_t cl_ficlone(int32_t to, int32_t from);
intptr_t cl_ficlonerange(int32_t to, int32_t from, uint64_t fromOffset, uint64_t count, uint64_t toOffset);
intptr_t cl_start_writeback(int32_t fd, int64_t offset, int64_t length);
intptr_t cl_fadvise(int32_t fd, int64_t offset, int64_t length, int32_t advice);

intptr_t cl_fstat(int32_t fd, cl_stat *out);
intptr_t cl_fstatat(int32_t dir, const void *path, size_t length, int32_t follow, cl_stat *out);
intptr_t cl_faccessat(int32_t dir, const void *path, size_t length, int32_t mode, int32_t effective);
intptr_t cl_fstatfs(int32_t fd, cl_statfs *out);
intptr_t cl_mkdirat(int32_t dir, const void *path, size_t length, uint32_t mode);
intptr_t cl_mknodat(int32_t dir, const void *path, size_t length, uint32_t mode, uint32_t major, uint32_t minor);
intptr_t cl_symlinkat(const void *target, size_t targetLength, int32_t dir, const void *path, size_t length);
intptr_t cl_readlinkat(int32_t dir, const void *path, size_t length, void *buffer, size_t size);
// The kernel's path of an open descriptor (readlink of /proc/self/fd/N).
intptr_t cl_fd_path(int32_t fd, void *buffer, size_t size);
// Writes "/proc/self/fd/N" and returns its length.
intptr_t cl_fd_proc_path(int32_t fd, void *buffer, size_t size);
intptr_t cl_unlinkat(int32_t dir, const void *path, size_t length, int32_t directory);
intptr_t cl_renameat2(int32_t fromDir, const void *from, size_t fromLength, int32_t toDir, const void *to, size_t toLength, uint32_t flags);
intptr_t cl_linkat(int32_t fromDir, const void *from, size_t fromLength, int32_t toDir, const void *to, size_t toLength);
// Gives an open file a name. Needs CAP_DAC_READ_SEARCH or, since Linux 6.10, the credentials of the opener.
intptr_t cl_link_fd_empty_path(int32_t fd, int32_t toDir, const void *to, size_t toLength);
// The same through /proc/self/fd, which needs no capability.
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
// operation: 1 shared, 2 exclusive, 8 unlock. With wait == 0, returns -EWOULDBLOCK instead of waiting.
intptr_t cl_flock(int32_t fd, int32_t operation, int32_t wait);

// Extended attributes. With a path: of that entry, without following symbolic links, through /proc/self/fd/DIR/PATH.
// With length 0: of the open file; an O_PATH descriptor works too.
intptr_t cl_listxattr(int32_t fd, const void *path, size_t length, void *buffer, size_t size);
intptr_t cl_getxattr(int32_t fd, const void *path, size_t length, const void *name, size_t nameLength, void *buffer, size_t size);
intptr_t cl_setxattr(int32_t fd, const void *path, size_t length, const void *name, size_t nameLength, const void *value, size_t size);
intptr_t cl_removexattr(int32_t fd, const void *path, size_t length, const void *name, size_t nameLength);

// fs-verity (linux/fsverity.h) with 4096-byte blocks and no salt. signature may be null.
intptr_t cl_enable_verity(int32_t fd, uint32_t algorithm, const void *signature, size_t signatureSize);
// Returns the size of the digest. digest must have room for 64 bytes.
intptr_t cl_measure_verity(int32_t fd, uint16_t *algorithm, uint8_t digest[64]);
// Reads the file's built-in signature. Returns its length, at most size; -ENODATA if the file has none.
intptr_t cl_verity_signature(int32_t fd, void *buffer, size_t size);

// The mount API.
intptr_t cl_fsopen(const char *type);
intptr_t cl_fsconfig_string(int32_t fs, const char *key, const void *value, size_t length);
intptr_t cl_fsconfig_flag(int32_t fs, const char *key);
intptr_t cl_fsconfig_fd(int32_t fs, const char *key, int32_t fd);
intptr_t cl_fsconfig_create(int32_t fs);
intptr_t cl_fsmount(int32_t fs, uint64_t attributes);
// Returns a detached copy of the mounts from this directory on, as a descriptor of its root.
intptr_t cl_copy_mounts(int32_t fd);
intptr_t cl_move_mount(int32_t mount, int32_t toDir, const void *to, size_t toLength);
intptr_t cl_mount_setattr(int32_t fd, int32_t recursive, uint64_t set, uint64_t clear, int32_t userNamespace);
intptr_t cl_umount(int32_t dir, const void *path, size_t length, int32_t flags);
// Unshares the mount namespace of the calling thread. The new one has copies of all mounts.
intptr_t cl_unshare_mounts(void);
// Makes the mount at this root private: no mount event propagates from or to it. -EINVAL if the path is not a mount's root.
intptr_t cl_make_mounts_private(const char *path, int32_t recursive);
// Moves the calling thread into a mount namespace. -EINVAL if another thread shares its file system information.
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

// Creates a user namespace without a process in it. It maps count IDs from 0 to the caller's IDs from first; with count 0 it maps none.
// Returns a descriptor of the namespace. The child process that creates it has ended when this returns.
intptr_t cl_user_namespace(uint32_t first, uint32_t count);

// Confinement (Confinement.c).
// The version of the Landlock ABI, 1 or more; -ENOSYS or -EOPNOTSUPP if Landlock is not available.
intptr_t cl_landlock_version(void);
// Makes a ruleset that handles these rights (LANDLOCK_ACCESS_FS_*, LANDLOCK_ACCESS_NET_*, LANDLOCK_SCOPE_*) and returns its descriptor.
intptr_t cl_landlock_create(uint64_t files, uint64_t network, uint64_t scopes);
// Grants rights beneath the file or directory of a descriptor.
intptr_t cl_landlock_allow(int32_t ruleset, uint64_t access, int32_t path);
// Restricts the calling thread, and the threads and processes that it starts from now on.
intptr_t cl_landlock_restrict(int32_t ruleset);
// Sets no_new_privs of the calling thread.
intptr_t cl_forbid_new_privileges(void);
// The permitted capabilities of the calling thread as a bit set.
intptr_t cl_permitted_capabilities(uint64_t *permitted);
// Removes all other capabilities from the calling thread; it has no inheritable and no ambient ones from then on.
intptr_t cl_limit_capabilities(uint64_t kept);
// One instruction of a seccomp filter: struct sock_filter (linux/filter.h).
typedef struct {
    uint16_t code;
    uint8_t jumpTrue, jumpFalse;
    uint32_t operand;
} cl_filter_instruction;
// Installs a seccomp filter in the calling thread, or in all threads of the process. -ESRCH if another thread has another filter.
intptr_t cl_install_filter(const cl_filter_instruction *instructions, size_t count, int32_t allThreads);
// Shuts down a socket of the Internet protocols; -ENOTSOCK if the descriptor is no socket.
intptr_t cl_shut_down_connection(int32_t fd);
// AUDIT_ARCH_* of this architecture (linux/audit.h); 0 if it is not known here.
extern const uint32_t cl_audit_architecture;
// Whether calls of the x32 ABI, with numbers from 0x40000000, share the value of cl_audit_architecture.
extern const int32_t cl_has_x32_calls;
// The number of a system call, by its name; -1 if this architecture lacks it.
int32_t cl_system_call_number(const char *name);

// Loop devices: find the number of a free one; configure one read-only, with automatic detaching.
intptr_t cl_loop_free(int32_t control);
intptr_t cl_loop_configure(int32_t loop, int32_t file);

// FUSE (linux/fuse.h).
// Lets a second descriptor of /dev/fuse serve the connection of the first one.
intptr_t cl_fuse_clone(int32_t device, int32_t connection);
// Registers a file that the kernel reads directly. Returns its number for open replies.
intptr_t cl_fuse_backing_open(int32_t device, int32_t file);
intptr_t cl_fuse_backing_close(int32_t device, int32_t backing);

// Moves bytes from a file at an offset into a pipe, or from a pipe (offset < 0) to another descriptor; without copying if possible.
intptr_t cl_splice(int32_t from, int64_t offset, int32_t to, size_t count);
// Sets a pipe's capacity in bytes and returns the actual capacity.
intptr_t cl_pipe_capacity(int32_t pipe, int32_t size);

// Processes, passed descriptors, signals.
intptr_t cl_socketpair(int32_t sockets[2]);
// Receives one descriptor from a socket; -ENODATA if the message has none.
intptr_t cl_receive_descriptor(int32_t socket);
// Stream sockets of the local machine (unix(7)). None of these calls waits.
intptr_t cl_local_socket(void);
// A path of 108 bytes or more gives -ENAMETOOLONG.
intptr_t cl_bind_local(int32_t socket, const void *path, size_t length);
intptr_t cl_connect_local(int32_t socket, const void *path, size_t length);
intptr_t cl_listen(int32_t socket, int32_t backlog);
intptr_t cl_accept(int32_t socket);
intptr_t cl_shut_down(int32_t socket);
// Returns 1 for a listening stream socket of the local machine, 0 for a connected one, -EPROTOTYPE for any other socket.
intptr_t cl_local_socket_listens(int32_t socket);
// Sends bytes, and at most 253 descriptors with the first of them.
intptr_t cl_send_with_descriptors(int32_t socket, const void *buffer, size_t count, const int32_t *descriptors, size_t descriptorCount);
// Receives bytes and at most 253 descriptors. Stores their number, and 1 in `truncated` if the kernel has dropped some.
intptr_t cl_receive_with_descriptors(
    int32_t socket, void *buffer, size_t count, int32_t descriptors[253], size_t *descriptorCount, int32_t *truncated);
typedef struct {
    int32_t descriptor;
    int16_t events, returned;
} cl_poll_entry;
// Waits for events; a negative number of milliseconds waits for ever.
intptr_t cl_poll(cl_poll_entry *entries, size_t count, int32_t milliseconds);
extern const int16_t cl_poll_in, cl_poll_out, cl_poll_ended;
// Reads and writes of this open file do not wait from now on.
intptr_t cl_set_nonblocking(int32_t fd);
// Starts a program, found by PATH if its name contains no slash; in a new session if `session`. Descriptor 3 is a duplicate of `inherited`
// (if >= 0), 0 and (if `quiet`) 1 are /dev/null, 2 is inherited and all others are closed. Returns the process ID.
intptr_t cl_spawn(const char *program, char *const argv[], char *const envp[], int32_t inherited, int32_t session, int32_t quiet);
// posix_spawn_file_actions_addclosefrom_np(3), which Swift's Glibc module lacks; `actions` is a posix_spawn_file_actions_t.
int32_t cl_spawn_close_from(void *actions, int32_t first);
// Waits for a child. Returns its exit status, or 128 + the number of the signal that ended it.
intptr_t cl_wait(int32_t process);
// Makes a descriptor number of the process refer to another open file (dup2).
intptr_t cl_replace_descriptor(int32_t from, int32_t to);
intptr_t cl_chdir(const void *path, size_t length);
// Opens /dev/null for each of 0, 1 and 2 that is closed, in the wrong access mode, so that using it remains an error.
intptr_t cl_fill_standard_descriptors(void);
// Whether the process ignores a signal.
int32_t cl_is_ignored(int32_t signal);
// Blocks SIGINT, SIGTERM and SIGHUP, except ignored ones, in this thread and the threads that it starts from now on; cl_wait_end_signal
// waits for them.
intptr_t cl_block_end_signals(void);
intptr_t cl_wait_end_signal(void);
// Makes the kernel's table of this process large enough for `count` descriptors, if the limit allows that many.
void cl_grow_descriptor_table(int32_t count);
// The soft limit of open descriptors.
intptr_t cl_descriptor_limit(void);
// Raises the soft limit of open descriptors to the hard limit and returns it.
intptr_t cl_raise_descriptor_limit(void);
// Makes malloc map blocks of at least `size` bytes, so that free returns them to the kernel (mallopt(3)).
void cl_map_large_blocks(int32_t size);
// The arguments of the process, with its name as the first; NULL past the last one.
size_t cl_argument_count(void);
const char *cl_argument(size_t index);
// The environment and the arguments of the process, each ended by a null pointer.
char **cl_environment_list(void);

// The host.
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
// The message of an errno, for example "No such file or directory"; always NUL-terminated.
void cl_error_text(int32_t error, char *buffer, size_t size);

// Whether all bytes are zero.
int32_t cl_is_zero(const void *bytes, size_t count);

#endif
