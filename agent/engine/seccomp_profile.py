"""The default profile: which system calls a container's programs may make, by what their container may do.

In effect Docker's, without io_uring, which CRIU cannot carry either. What is not allowed gets EPERM, what is younger than all that
is known here ENOSYS (libseccomp.py). docs/security.md
"""

from __future__ import annotations

import errno
import platform
from collections.abc import Collection, Sequence

from agent.linux import libseccomp
from agent.linux.libseccomp import Condition, Rule

_FILES = """
access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64
fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr
flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents
getdents64 getxattr getxattrat ioctl lchown lchown32 lgetxattr link linkat listxattr listxattrat llistxattr _llseek lremovexattr
lseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 pread64 preadv preadv2
pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv removexattr removexattrat rename renameat renameat2 rmdir
sendfile sendfile64 setxattr setxattrat stat stat64 statfs statfs64 statmount listmount statx symlink symlinkat sync
sync_file_range syncfs truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes write writev
file_getattr file_setattr cachestat
"""
_EVENTS = """
epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2
fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents
io_pgetevents_time64 io_setup io_submit _newselect pipe pipe2 poll ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd
signalfd4 splice tee vmsplice
"""
_MEMORY = """
brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 mprotect mremap mseal
msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages
"""
_PROCESSES = """
alarm capget capset execve execveat exit exit_group fork futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake
getcpu getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpgid getpgrp getpid getppid
getpriority getresgid getresgid32 getresuid getresuid32 getrlimit get_robust_list getrusage getsid get_thread_area gettid getuid
getuid32 ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self
pause pidfd_open pidfd_send_signal prctl prlimit64 process_mrelease process_vm_readv
process_vm_writev ptrace restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam
sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp setfsgid setfsgid32 setfsuid setfsuid32
setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid
setresuid32 setreuid setreuid32 setrlimit set_robust_list setsid set_thread_area set_tid_address setuid setuid32 sigaltstack
sigprocmask sigreturn tgkill tkill ugetrlimit vfork wait4 waitid waitpid
"""
_NETWORK = """
accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 recvmsg send sendmmsg
sendmsg sendto setsockopt shutdown socketcall socketpair
"""
_CLOCKS_AND_QUEUES = """
adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
clock_nanosleep_time64 getrandom gettimeofday ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64
mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd nanosleep semctl semget semop semtimedop
semtimedop_time64 shmat shmctl shmdt shmget sysinfo time timer_create timer_delete timerfd_create timerfd_gettime
timerfd_gettime64 timerfd_settime timerfd_settime64 timer_getoverrun timer_gettime timer_gettime64 timer_settime
timer_settime64 times uname
"""
ALWAYS = (_FILES + _EVENTS + _MEMORY + _PROCESSES + _NETWORK + _CLOCKS_AND_QUEUES).split()

# Allowed with any one of the capabilities before the colon.
WITH_CAPABILITY = """
DAC_READ_SEARCH: open_by_handle_at
SYS_ADMIN: bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount open_tree
SYS_ADMIN: lsm_get_self_attr lsm_list_modules lsm_set_self_attr
SYS_ADMIN: open_tree_attr perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare
SYS_BOOT: reboot
SYS_CHROOT: chroot
SYS_MODULE: delete_module finit_module init_module
SYS_PACCT: acct
SYS_PTRACE: kcmp pidfd_getfd process_madvise
SYS_RAWIO: ioperm iopl
SYS_TIME: clock_settime clock_settime64 settimeofday stime
SYS_TTY_CONFIG: vhangup
SYS_NICE: get_mempolicy mbind set_mempolicy set_mempolicy_home_node
SYSLOG: syslog
BPF: bpf
PERFMON: perf_event_open
"""
ON_ARCHITECTURE = {
    "x86_64": "arch_prctl modify_ldt",
    "aarch64": "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2",
    "riscv64": "riscv_flush_icache",
    "s390x": "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr",
    "ppc64le": "swapcontext sync_file_range2",
}
SUB_ARCHITECTURES = {"x86_64": ("x86", "x32"), "aarch64": ("arm",), "s390x": ("s390",)}

_NAMESPACES = 0x7E020000  # CLONE_NEW*: NS, CGROUP, UTS, IPC, USER, PID, NET
# Families of sockets that no container needs and that have been ways out or up: DECnet, Econet, ATM's signalling, IrDA, WANPIPE,
# IUCV, CAIF, ALG (the kernel's cryptography), VSOCK (leads to the hypervisor); and all that are younger.
_REFUSED_FAMILIES = (12, 19, 20, 23, 25, 34, 37, 38, 40)
_FAMILIES = 46
# PER_LINUX, PER_LINUX32, both with UNAME26, and the question which it is
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)


def default(capabilities: Collection[str], machine: str = "") -> tuple[int, list[Rule], Sequence[str]]:
    """What compile_filter() takes: default action, rules, further architectures. `capabilities`: "CAP_CHOWN"; `machine`: as
    platform.machine(), "" = this one's.
    """
    machine = machine or platform.machine()
    allowed = {*ALWAYS, *ON_ARCHITECTURE.get(machine, "").split()}
    for line in WITH_CAPABILITY.strip().splitlines():
        capability, _, names = line.partition(": ")
        if f"CAP_{capability}" in capabilities:
            allowed.update(names.split())
    rules = [Rule(names=tuple(sorted(allowed)), action=libseccomp.ALLOW)]
    if "clone" not in allowed:
        flags = 1 if machine.startswith("s390") else 0  # which argument has them
        rules.append(_allow("clone", Condition(index=flags, comparison="MASKED_EQ", value=_NAMESPACES, other=0)))
        # What clone3 makes is behind a pointer, out of a filter's sight: C libraries take clone where it is missing.
        rules.append(Rule(names=("clone3",), action=libseccomp.errno_action(errno.ENOSYS)))
    first = min(_REFUSED_FAMILIES)
    rules.append(_allow("socket", Condition(index=0, comparison="LT", value=first)))
    for family in sorted(set(range(first, _FAMILIES)) - set(_REFUSED_FAMILIES)):
        rules.append(_allow("socket", Condition(index=0, comparison="EQ", value=family)))
    rules += [_allow("personality", Condition(index=0, comparison="EQ", value=each)) for each in _PERSONALITIES]
    return libseccomp.errno_action(errno.EPERM), rules, SUB_ARCHITECTURES.get(machine, ())


def _allow(name: str, condition: Condition) -> Rule:
    return Rule(names=(name,), action=libseccomp.ALLOW, conditions=(condition,))
