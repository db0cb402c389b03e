"""Why a dump fails: what CRIU cannot save of a process, and what it met while it looked. The first rule that fits counts."""

from agent.diagnosis.rule import CRIU, Rule

FILES = (
    Rule(
        name="io-uring",
        pattern=r"io_uring",
        cause="a process uses io_uring, which CRIU cannot save",
        remedy=(
            "switch io_uring off in the program's configuration (Redis, MariaDB, Node.js and others have a "
            "setting), restart it, move again"
        ),
        check="io-uring",
        thread=f"{CRIU}#2131",
    ),
    Rule(
        name="userfaultfd",
        pattern=r"Can't dump file (?P<fd>\d+) of that type .*\[userfaultfd\]",
        cause="a process uses userfaultfd itself (descriptor {fd}): CRIU cannot save that",
        remedy="let the program close it for the time of the move, or move it stopped: migrate stop, then start it elsewhere",
        check="userfaultfd",
        thread=f"{CRIU}#2021",
    ),
    Rule(
        name="memfd-secret",
        pattern=r"secretmem",
        cause="a process has memory of memfd_secret, which nobody else can read, CRIU included",
        remedy="switch secret memory off in the program (a setting of its cryptographic library), or move it stopped",
        check="memfd-secret",
        thread=f"{CRIU}#2188",
    ),
    Rule(
        name="pidfd",
        pattern=r"pidfd pid (?P<pid>\d+) is not a part of process tree|\[pidfd\]",
        cause="a process holds a pidfd of a process that is not in the container, or its CRIU is older than 4.1",
        remedy=(
            "close that descriptor (it names a process of another container or of the host), CRIU 4.1 or newer "
            "on both hosts: migrate doctor"
        ),
        thread=f"{CRIU}#2258",
    ),
    Rule(
        name="perf-event",
        pattern=r"Can't dump file (?P<fd>\d+) of that type .*\[perf_event\]",
        cause="a process measures with perf events (descriptor {fd}): these live in this kernel only",
        remedy="end the profiler in the container and move again",
        check="perf-event",
        thread="criu/files-ext.c",
    ),
    Rule(
        name="bpf",
        pattern=r"Can't dump file (?P<fd>\d+) of that type .*\bbpf-(prog|link)",
        cause="a process holds a BPF program or link (descriptor {fd}): it is loaded into this kernel and stays there",
        remedy="end the process that loaded it, move, and start it again on the other host",
        check="kernel-object",
        thread="criu/files-ext.c",
    ),
    Rule(
        name="gpu",
        pattern=r"Can't dump file (?P<fd>\d+) of that type \[\d+\] \(chr (?P<device>(?:195|226|23[0-9]|5(?:0[0-9]|1[01])):\d+)",
        cause=(
            "a process has a graphics device open (descriptor {fd}, device {device}): what it computes there is "
            "not in its memory"
        ),
        remedy="let the program close the device (end its GPU work) and move again; or run it without the device",
        check="device-open",
        thread=f"{CRIU}#1873",
    ),
    Rule(
        name="device",
        pattern=r"Can't dump file (?P<fd>\d+) of that type \[\d+\] \((?:chr|blk) (?P<device>\d+:\d+)",
        cause="a process has a device of the host open (descriptor {fd}, device {device}): its state is in hardware and driver",
        remedy="end that program, or let it close the device; `grep DEVICE_MAJOR /proc/devices` names the driver",
        check="device-open",
        thread=f"{CRIU}#1112",
    ),
    Rule(
        name="file-type",
        pattern=r"Can't dump file (?P<fd>-?\d+) of that type \[\d+\] \((?P<what>[^)]*)\)?",
        cause="CRIU does not know how to save descriptor {fd} ({what})",
        remedy="find who holds it (ls -l /proc/PID/fd) and let that program close it for the time of the move",
        check="kernel-object",
        thread=f"{CRIU}#1124",
    ),
    Rule(
        name="ghost-too-large",
        pattern=r"Can't dump ghost file (?P<path>.+) of (?P<bytes>\d+) size",
        cause="{path} was deleted and is still open, and with {bytes} bytes it is above the limit for such files",
        remedy=(
            "let the program close or truncate it (often a rotated log or a JIT's file: restart or signal the "
            "program), move again"
        ),
        check="deleted-file",
        thread=f"{CRIU}#202",
    ),
    Rule(
        name="link-remap",
        pattern=r"Can't create link remap for (?P<path>\S+?)\.? Use|trim failed: @(?P<path2>link_remap\S*)@",
        cause="a file that was deleted while it is open or mapped cannot be given a name for the time of the dump",
        remedy="let the program that has it open close it (a program whose own file was replaced: restart it), move again",
        thread=f"{CRIU}#219",
    ),
    Rule(
        name="inotify",
        pattern=r"Can't dump that handle|fsnotify: +Can't open file handle|inotify|fanotify",
        cause=(
            "a process watches files (inotify or fanotify), and this file system cannot say which file a watch "
            "is for (overlayfs)"
        ),
        remedy=(
            "stop the watcher for the time of the move (a desktop, a development server's reloader, "
            "NetworkManager), or watch a volume instead"
        ),
        check="inotify-overlay",
        thread=f"{CRIU}#136",
    ),
    Rule(
        name="file-locks",
        pattern=r"Some file locks are hold by dumping tasks",
        cause="processes hold file locks and CRIU was not told to carry them; a move by migrate always does",
        remedy="dump with --file-locks",
        thread=f"{CRIU}#1370",
    ),
    Rule(
        name="lease",
        pattern=r"Unknown file lock: .*(LEASE|DELEG)",
        cause="somebody has a lease on a file of the container (a file server, or fcntl F_SETLEASE): this CRIU cannot carry it",
        remedy="end who holds the lease (/proc/locks has its pid), or use CRIU 2.10 or newer: migrate doctor",
        thread=f"{CRIU}#154",
    ),
    Rule(
        name="pipes",
        pattern=r"OOM storing pipe",
        cause="the container has more than 1024 pipes with data in them: a limit that is built into CRIU",
        remedy="let the programs empty or close pipes (fewer workers), move again",
        thread="criu/pipes.c",
    ),
    Rule(
        name="descriptors",
        pattern=r"Too many open files",
        cause="CRIU ran into its limit of open descriptors: it needs some for every large piece of memory and every task",
        remedy="raise the agent's limit (LimitNOFILE= in its systemd unit, or ulimit -n), restart the agent, move again",
        thread=f"{CRIU}#239",
    ),
    Rule(
        name="mapped-file",
        pattern=r"Can't open (?P<pid>\d+)'s mapfile link",
        cause="process {pid} has memory mapped from something that CRIU cannot open (a device or an object of the kernel)",
        remedy="see what it is in /proc/{pid}/maps, and let the program give it up",
        thread=f"{CRIU}#2673",
    ),
    Rule(
        name="uprobes",
        pattern=r"PID (?P<pid>\d+) has uprobes vma",
        cause="process {pid} has been instrumented by a tracer of the host (uprobes)",
        remedy="detach the tracer (bpftrace, perf, an observability agent) from the container's processes and move again",
        thread="criu/proc_parse.c",
    ),
)

SOCKETS = (
    Rule(
        name="unix-stream",
        pattern=r"Can't dump half of stream unix connection(?:\. name: (?P<name>[^;]+); peer name: (?P<peer>\S+))?",
        cause=(
            "a process has a unix stream connection whose other end is outside the container (own name: {name}, "
            "the other's: {peer})"
        ),
        remedy="close that connection (often a mounted /run/... socket: D-Bus, a database, a log daemon) and move again",
        check="unix-peer",
        thread=f"{CRIU}#1788",
    ),
    Rule(
        name="unix-external",
        pattern=r"External socket is used|Can't dump name-less external socket|Ext stream not supported",
        cause="a process is connected to a unix socket outside the container",
        remedy="close that connection and move again",
        check="unix-peer",
        thread=f"{CRIU}#505",
    ),
    Rule(
        name="unix-in-flight",
        pattern=r"(Non-empty write queue on an|Found a closed) in-flight socket|Dangling connection",
        cause="a unix connection inside the container had been made and not yet been accepted",
        remedy="move again: this lasts for moments only, unless a server does not accept any more",
        thread="criu/sk-unix.c",
    ),
    Rule(
        name="tcp-in-flight",
        pattern=r"In-flight connection",
        cause="a client was in the middle of connecting: TCP connections that are not complete cannot be carried",
        remedy="move again; on a busy server, let the proxy in front of it hold new connections for a second",
        check="half-open",
        thread=f"{CRIU}#1324",
    ),
    Rule(
        name="tcp-established",
        pattern=r"Connected TCP socket, consider",
        cause="there are open TCP connections and CRIU was not told to carry them; a move by migrate always does",
        remedy="dump and restore with --tcp-established",
        thread=f"{CRIU}#589",
    ),
    Rule(
        name="tcp-image",
        pattern=r"Connected TCP socket in image",
        cause="the images hold open TCP connections and this restore was not told to bring them back",
        remedy="restore with --tcp-established, or with --tcp-close to drop them",
        thread=f"{CRIU}#286",
    ),
    Rule(
        name="socket-vanished",
        pattern=r"Name resolved on unconnected socket",
        cause="a client closed its connection in the moment in which the network was locked",
        remedy="move again",
        thread=f"{CRIU}#237",
    ),
    Rule(
        name="mptcp",
        pattern=r"Unsupported proto 262|MPTCP",
        cause="a process uses Multipath TCP (Go programs do by default since 1.24), which CRIU cannot save",
        remedy="set GODEBUG=multipathtcp=0 in the container's environment (run -e), or switch MPTCP off in the program",
        check="mptcp",
        thread="criu/sk-inet.c",
    ),
    Rule(
        name="socket-protocol",
        pattern=r"Unsupported proto (?P<proto>\d+) for socket",
        cause="a process has a socket of IP protocol {proto}, which CRIU cannot save",
        remedy="let the program close it; /etc/protocols names the protocol",
        check="socket-kind",
        thread="criu/sk-inet.c",
    ),
    Rule(
        name="sockopt-6.16",
        pattern=r"Can't get 1:(16|34)(\(\d+\))? opt",
        cause="CRIU 4.1 on a kernel from 6.16 on: the kernel refuses two socket options that this CRIU asks for",
        remedy="CRIU 4.2 or newer: make setup brings it, migrate doctor shows which one is used",
        check="criu",
        thread=f"{CRIU}#2705",
    ),
    Rule(
        name="netlink-data",
        pattern=r"The socket has data to read",
        cause="a netlink socket holds messages that its program has not read: CRIU cannot carry them",
        remedy="move again; if it stays so, restart the program that listens to netlink (udev, a network daemon)",
        thread="criu/sk-netlink.c",
    ),
)

PROCESSES = (
    Rule(
        name="nested-namespace",
        pattern=r"Can't dump nested (?P<kind>\w+) namespace for (?P<pid>\d+)|Nested (?P<kind2>mount) namespaces are not supported",
        cause="a process made namespaces of its own inside the container ({kind}): CRIU cannot save those",
        remedy=(
            "run without what makes them: systemd units with PrivateUsers=, ProtectHostname= and the like, "
            "sandboxes of browsers, docker in docker"
        ),
        check="nested-namespace",
        thread=f"{CRIU}#1430",
    ),
    Rule(
        name="foreign-user-namespace",
        pattern=r"Unable to convert uid or gid|doesn't belong to the target user namespace",
        cause="a process is in a user namespace that is not the container's, or has ids that the container's does not map",
        remedy="end sandboxed programs (browsers, bubblewrap, flatpak) in the container and move again",
        thread=f"{CRIU}#2315",
    ),
    Rule(
        name="traced",
        pattern=r"zombie.* found while seizing|Unable to interrupt task|is already traced",
        cause="a process is being traced by a debugger or strace: a task has one tracer, and CRIU must be it",
        remedy="detach strace, gdb or the profiler (grep TracerPid /proc/PID/status names it) and move again",
        check="ptrace",
        thread=f"{CRIU}#1753",
    ),
    Rule(
        name="criu-inside",
        pattern=r"The criu itself is within dumped tree",
        cause="CRIU was started by a process that it was asked to dump",
        remedy="start it from outside the container; a move by migrate does",
        thread=f"{CRIU}#2080",
    ),
    Rule(
        name="freeze-timeout",
        pattern=r"Timeout reached\. Try to interrupt|Unable to freeze cgroup",
        cause="the processes did not stand still in time: one of them waits in the kernel (state D: a disk, NFS, FUSE, a driver)",
        remedy=(
            "see who is in state D (ps -eo pid,stat,wchan,comm) and what it waits for; move again when the disk "
            "or server answers"
        ),
        thread=f"{CRIU}#423",
    ),
    Rule(
        name="parasite",
        pattern=r"Can't infect \(pid: (?P<pid>\d+)\)|Unexpected \d+ task interruption",
        cause=(
            "CRIU's helper code could not be run in a process: a security module, a handler of hardware faults "
            "or a tracer interferes"
        ),
        remedy="look for denials in the kernel's log (dmesg, ausearch -m avc), and for profilers that hook into the process",
        thread=f"{CRIU}#2227",
    ),
    Rule(
        name="stopped-threads",
        pattern=r"Individually stopped threads not supported|Zombies? (with threads|thread)|Zombie with children",
        cause="a process is half dead: threads that have ended or are stopped one by one, which CRIU cannot save",
        remedy="move again in a moment; if it stays, restart that process",
        thread="criu/seize.c",
    ),
    Rule(
        name="rlimit",
        pattern=r"Can't get rlimit \d+: Operation not permitted",
        cause=(
            "CRIU lacks CAP_SYS_RESOURCE over a process with another user id (a container without a user "
            "namespace, or a capped root)"
        ),
        remedy="give the agent CAP_SYS_RESOURCE, or run the container as migrate does, in a user namespace",
        check="privileges",
        thread="criu/cr-dump.c",
    ),
    Rule(
        name="sysv-shm-outside",
        pattern=r"Task (?P<pid>\d+) with SysVIPC shmem map .* doesn't live in IPC ns",
        cause="process {pid} uses System V shared memory of the host's IPC namespace",
        remedy="run the container without --ipc host",
        check="sysv-ipc",
        thread="criu/cr-dump.c",
    ),
    Rule(
        name="sysv-shm-holes",
        pattern=r"Sysv shmem \S+ with (a|tail|misordered)",
        cause="System V shared memory is attached in pieces, in a way that CRIU cannot put back",
        remedy="use a setting without System V shared memory (PostgreSQL: shared_memory_type = mmap), restart, move again",
        thread="criu/shmem.c",
    ),
    Rule(
        name="seccomp",
        pattern=r"Can't fetch (filter|seccomp metadata)|couldn't suspend seccomp|Dumping seccomp filters not supported",
        cause="the kernel does not give CRIU the seccomp filters of a process",
        remedy="a kernel with CONFIG_CHECKPOINT_RESTORE (migrate doctor), or run with --security-opt seccomp=unconfined",
        thread="criu/seccomp.c",
    ),
    Rule(
        name="vdso",
        pattern=r"Unexpected rt vDSO area bounds|Can't find (rt )?vDSO|Found VVAR area without support",
        cause="this CRIU does not know how the running kernel lays out its vDSO: it is older than the kernel",
        remedy="a newer CRIU on both hosts: make setup brings one, migrate doctor shows which one is used",
        check="criu",
        thread=f"{CRIU}#2532",
    ),
    Rule(
        name="apparmor-read",
        pattern=r"err scanfing",
        cause="AppArmor is on and does not say which profile a process has",
        remedy="switch AppArmor off for this host, or use a kernel in which /proc/PID/attr/current can be read",
        thread=f"{CRIU}#2033",
    ),
    Rule(
        name="parent-pagemap",
        pattern=r"Missing \S+ in parent pagemap|not found in parent|No parent for snapshot|No parent image found",
        cause=(
            "the images of a pre-dump do not fit this dump: the process ended, or memory moved between the two; "
            "migrate uses no pre-dumps of CRIU"
        ),
        remedy="dump once more without --prev-images-dir; with it, the path must be relative to the images",
        thread=f"{CRIU}#216",
    ),
)

TERMINALS = (
    Rule(
        name="tty-master",
        pattern=r"Unable to find a master for (?P<path>\S+)|Found slave peer index \d+ without|Found dangling tty",
        cause="a process has a terminal whose other end is outside the container",
        remedy="detach who is attached from outside (a shell by nsenter, lxc console, script), run terminals by `migrate run -it`",
        check="pty-peer",
        thread=f"{CRIU}#299",
    ),
    Rule(
        name="tty-foreground",
        pattern=r"ctty inheritance detected",
        cause="/dev/tty is open while another job than its own is in the foreground of the terminal",
        remedy="wait until the shell is at its prompt, or stop the job there (ctrl-z), and move again",
        check="terminal",
        thread="criu/tty.c",
    ),
)

MOUNTS = (
    Rule(
        name="mount-root",
        pattern=r"mnt: (?P<mount>\S+) doesn't have a proper root mount",
        cause="{mount} is a part of a file system of the host that is not mounted whole in the container",
        remedy=(
            "declare it as a mount of the container (run -v), not by hand from outside; then CRIU is told that "
            "it comes from outside"
        ),
        thread=f"{CRIU}#1511",
    ),
    Rule(
        name="mount-sharing",
        pattern=r"Mount \d+ (?P<mount>\S+) .*has unreachable sharing",
        cause="the mount {mount} receives mounts of the host (shared or slave propagation): those cannot go along",
        remedy="run it without that propagation (-v ...:rprivate, the default)",
        check="propagation",
        thread=f"{CRIU}#223",
    ),
    Rule(
        name="mount-type",
        pattern=r"FS mnt (?P<mount>\S+) dev \S+ root \S+ unsupported",
        cause="a file system that CRIU does not know is mounted at {mount} inside the container",
        remedy="unmount it for the time of the move, or give it to the container from outside (run -v)",
        thread="criu/mount.c",
    ),
)

DUMP = (*FILES, *SOCKETS, *PROCESSES, *TERMINALS, *MOUNTS)
