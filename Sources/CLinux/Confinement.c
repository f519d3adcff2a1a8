#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

_Static_assert(
    sizeof(cl_filter_instruction) == sizeof(struct sock_filter) && offsetof(cl_filter_instruction, operand) == offsetof(struct sock_filter, k),
    "sock_filter layout");

#define RESULT(call) ({ intptr_t result_ = (intptr_t)(call); result_ == -1 ? -(intptr_t)errno : result_; })

// linux/landlock.h of build hosts may be older than the running kernel. The numbers of these calls are the same on all architectures.
enum { NR_landlock_create_ruleset = 444, NR_landlock_add_rule = 445, NR_landlock_restrict_self = 446 };

intptr_t cl_landlock_version(void) { return RESULT(syscall(NR_landlock_create_ruleset, NULL, (size_t)0, 1)); }

intptr_t cl_landlock_create(uint64_t files, uint64_t network, uint64_t scopes) {
    struct {
        uint64_t files, network, scopes;
    } attributes = {files, network, scopes};
    // A kernel that does not know the last members accepts the longer structure if they are 0.
    return RESULT(syscall(NR_landlock_create_ruleset, &attributes, sizeof attributes, 0));
}

intptr_t cl_landlock_allow(int32_t ruleset, uint64_t access, int32_t path) {
    struct {
        uint64_t access;
        int32_t path;
    } __attribute__((packed)) rule = {access, path};
    return RESULT(syscall(NR_landlock_add_rule, ruleset, 1 /* LANDLOCK_RULE_PATH_BENEATH */, &rule, 0));
}

intptr_t cl_landlock_restrict(int32_t ruleset) { return RESULT(syscall(NR_landlock_restrict_self, ruleset, 0)); }

intptr_t cl_forbid_new_privileges(void) { return RESULT(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); }

intptr_t cl_permitted_capabilities(uint64_t *permitted) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct data[2] = {{0, 0, 0}, {0, 0, 0}};
    intptr_t result = RESULT(syscall(SYS_capget, &header, data));
    if (result >= 0) *permitted = (uint64_t)data[1].permitted << 32 | data[0].permitted;
    return result;
}

intptr_t cl_limit_capabilities(uint64_t kept) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct data[2] = {{0, 0, 0}, {0, 0, 0}};
    intptr_t result = RESULT(syscall(SYS_capget, &header, data));
    if (result < 0) return result;
    for (int word = 0; word < 2; word++) {
        uint32_t mask = (uint32_t)(kept >> (32 * word));
        data[word].permitted &= mask;
        data[word].effective &= mask;
        // A program that this process starts inherits none, and with them the ambient ones end.
        data[word].inheritable = 0;
    }
    return RESULT(syscall(SYS_capset, &header, data));
}

intptr_t cl_install_filter(const cl_filter_instruction *instructions, size_t count, int32_t allThreads) {
    if (count > BPF_MAXINSNS) return -E2BIG;
    struct sock_fprog program = {.len = (unsigned short)count, .filter = (struct sock_filter *)(uintptr_t)instructions};
    // SPEC_ALLOW: kernels before 5.16 would otherwise slow down every indirect branch of a process with a filter.
    unsigned int flags = SECCOMP_FILTER_FLAG_SPEC_ALLOW | (allThreads ? SECCOMP_FILTER_FLAG_TSYNC : 0);
    intptr_t result = RESULT(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program));
    // With TSYNC, a positive result is the number of a thread with another filter.
    return result > 0 ? -ESRCH : result;
}

intptr_t cl_shut_down_connection(int32_t fd) {
    int domain = 0;
    socklen_t size = sizeof domain;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0) return -(intptr_t)errno;
    if (domain != AF_INET && domain != AF_INET6) return 0;
    return RESULT(shutdown(fd, SHUT_RDWR));
}

#if defined __x86_64__
const uint32_t cl_audit_architecture = AUDIT_ARCH_X86_64;
const int32_t cl_has_x32_calls = 1;
#elif defined __aarch64__
const uint32_t cl_audit_architecture = AUDIT_ARCH_AARCH64;
const int32_t cl_has_x32_calls = 0;
#else
const uint32_t cl_audit_architecture = 0;
const int32_t cl_has_x32_calls = 0;
#endif

static const struct {
    const char *name;
    int32_t number;
} calls[] = {
#define CALL(name) {#name, SYS_##name}
    CALL(accept), CALL(accept4), CALL(acct), CALL(add_key), CALL(adjtimex), CALL(bind), CALL(bpf), CALL(chroot), CALL(clock_adjtime),
    CALL(clock_settime), CALL(clone), CALL(connect), CALL(delete_module), CALL(execve), CALL(execveat), CALL(fanotify_init),
    CALL(finit_module), CALL(init_module), CALL(ioctl), CALL(kcmp), CALL(kexec_load), CALL(keyctl), CALL(kill), CALL(listen), CALL(mknodat),
    CALL(mount), CALL(open_by_handle_at), CALL(perf_event_open), CALL(personality), CALL(pivot_root), CALL(process_vm_readv),
    CALL(process_vm_writev), CALL(ptrace), CALL(quotactl), CALL(reboot), CALL(request_key), CALL(rt_sigqueueinfo), CALL(setdomainname),
    CALL(setfsgid), CALL(setfsuid), CALL(setgid), CALL(setgroups), CALL(sethostname), CALL(setns), CALL(setregid), CALL(setresgid),
    CALL(setresuid), CALL(setreuid), CALL(settimeofday), CALL(setuid), CALL(socket), CALL(socketpair), CALL(swapoff), CALL(swapon),
    CALL(syslog), CALL(umount2), CALL(unshare), CALL(userfaultfd), CALL(vhangup),
#ifdef SYS_ioperm
    CALL(ioperm), CALL(iopl), CALL(modify_ldt), CALL(mknod), CALL(uselib),
#endif
    // The same number on all architectures; the headers of build hosts may lack some.
    {"pidfd_send_signal", 424}, {"io_uring_setup", 425}, {"io_uring_enter", 426}, {"io_uring_register", 427}, {"open_tree", 428},
    {"move_mount", 429}, {"fsopen", 430}, {"fsconfig", 431}, {"fsmount", 432}, {"fspick", 433}, {"clone3", 435}, {"pidfd_getfd", 438},
    {"mount_setattr", 442}, {"quotactl_fd", 443}, {"open_tree_attr", 467},
#if defined __x86_64__
    {"kexec_file_load", 320},
#elif defined __aarch64__
    {"kexec_file_load", 294},
#endif
};

int32_t cl_system_call_number(const char *name) {
    for (size_t at = 0; at < sizeof calls / sizeof calls[0]; at++)
        if (strcmp(calls[at].name, name) == 0) return calls[at].number;
    return -1;
}
