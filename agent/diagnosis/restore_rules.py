"""Why a restore fails: the target differs from the source, or something of it is in the way. The first rule that fits counts."""

from agent.diagnosis.rule import CRIU, Rule

FILES = (
    Rule(
        name="file-size",
        pattern=r"File (?P<path>.+) has bad size (?P<now>\d+) \(expect (?P<then>\d+)\)",
        cause="{path} has {now} bytes on this host and had {then} when the container was frozen",
        remedy=(
            "something else writes to that file: a second container, or the host, by a bind mount; keep it "
            "apart, or leave it out of the container"
        ),
        thread=f"{CRIU}#515",
    ),
    Rule(
        name="file-mode",
        pattern=r"File (?P<path>.+) has bad mode (?P<now>\S+) \(expect (?P<then>\S+)\)",
        cause="{path} has the mode {now} on this host and had {then} on the source",
        remedy="make both the same (chmod, a bind mount's source), then move again",
        thread=f"{CRIU}#650",
    ),
    Rule(
        name="file-build-id",
        pattern=r"File (?P<path>.+) has bad build-ID",
        cause="{path} is another build than on the source: the program's code would not be the one that runs",
        remedy="the same package or image on both hosts: compare the digests (migrate images), or the files of a bind mount",
        thread=f"{CRIU}#1756",
    ),
    Rule(
        name="proc-file",
        pattern=r"Can't open file (?P<path>proc/\d+\S*) on restore",
        cause="a process has a file of /proc open ({path}) that belongs to a task which does not exist yet",
        remedy="let the program close it for the time of the move (a monitoring agent), and move again",
        thread=f"{CRIU}#1553",
    ),
    Rule(
        name="tty-file",
        pattern=r"Can't open file (?P<path>dev/(tty|pts/\d+)) on restore",
        cause="a process has a terminal open ({path}) that does not exist here",
        remedy="detach who is attached, move again; a terminal of the container's own is made by run -it",
        thread=f"{CRIU}#264",
    ),
    Rule(
        name="file-missing",
        pattern=r"Can't open file (?P<path>\S+)( on restore)?: No such file",
        cause="{path} is open in the container and does not exist on this host",
        remedy="bring it there (a bind mount's source), or let the program close it",
        check="bind-source",
        thread=f"{CRIU}#102",
    ),
    Rule(
        name="ghost-read-only",
        pattern=r"ghost.*Read-only file system",
        cause="a file that was deleted while open must be made anew for a moment, and its file system is read-only here",
        remedy="let the program close it, or mount that path writable (a tmpfs: --tmpfs PATH)",
        thread=f"{CRIU}#429",
    ),
    Rule(
        name="ghost-in-the-way",
        pattern=r"Can't link (?P<from>\S+\.ghost) -> (?P<path>\S+): File exists",
        cause="{path} exists on this host, where the container had a deleted file of that name",
        remedy="remove what an earlier restore left there; nothing else may write to the container's files",
        thread=f"{CRIU}#201",
    ),
    Rule(
        name="link-remap-missing",
        pattern=r"Can't link (?P<from>\S*link_remap\S*) -> (?P<path>\S+): No such file",
        cause="the name that the dump gave to a deleted file ({from}) did not come along",
        remedy="copy the files after the dump, not before it; let the program close the file and move again",
        thread=f"{CRIU}#2016",
    ),
    Rule(
        name="mount-restore",
        pattern=r"Unable to mount (?P<path>\S+): Invalid argument|New root and old root are the same|Can't (re)?mount",
        cause="a mount of the container cannot be made here as it was",
        remedy="compare the sources of its bind mounts on both hosts (migrate inspect); the root must be a mount of its own",
        thread=f"{CRIU}#1941",
    ),
    Rule(
        name="mount-set-group",
        pattern=r"move_mount_set_group|MOVE_MOUNT_SET_GROUP|mnt-v2",
        cause="the kernel lacks MOVE_MOUNT_SET_GROUP",
        remedy="Linux 5.15 or newer is needed on this host",
        check="kernel",
        thread=f"{CRIU}#2000",
    ),
)

PROCESSES = (
    Rule(
        name="pid-taken",
        pattern=r"Can't fork for (?P<pid>\d+): File exists|Pid \d+ do(es)? not match|task .* already exists",
        cause="a process id that the container had is taken",
        remedy="restore in a pid namespace of its own, as migrate does; without one, end the process that has the id",
        thread=f"{CRIU}#2692",
    ),
    Rule(
        name="thread-id",
        pattern=r"Thread pid mismatch|Unable to create a thread",
        cause="a thread could not get the id that it had: taken, or the kernel cannot give ids (older than 5.5)",
        remedy="restore in a pid namespace of its own, as migrate does; look at the limit of processes (--pids-limit)",
        thread=f"{CRIU}#1431",
    ),
    Rule(
        name="tty-index",
        pattern=r"Unable to open (?P<path>\S*ptmx) with specified index (?P<index>\d+)",
        cause="the number of a terminal ({index}) is taken in this devpts",
        remedy="the container needs a devpts of its own (mounted with newinstance), as migrate makes it",
        thread=f"{CRIU}#1040",
    ),
    Rule(
        name="tty-inherit",
        pattern=r"Don't have tty to inherit",
        cause="the processes had a terminal of who started them, and this restore has none",
        remedy="start such programs by run -it or setsid, so that the terminal is the container's own",
        thread=f"{CRIU}#1160",
    ),
    Rule(
        name="lsm",
        pattern=r"can't write lsm profile|mismatched lsm types|LSM specified but",
        cause="the processes had a profile of AppArmor or SELinux that this host does not have",
        remedy="the same security module and profiles on both hosts (aa-status, sestatus), or none",
        check="lsm",
        thread="podman-container-tools/podman#12437",
    ),
    Rule(
        name="capabilities",
        pattern=r"Unable to (restore capabil|drop capability|raise ambient)",
        cause="the processes had capabilities that nobody can have here: an older kernel, or a capped root",
        remedy="compare CapBnd in /proc/1/status of both hosts; run with --cap-drop for what one lacks",
        thread=f"{CRIU}#499",
    ),
    Rule(
        name="cpu",
        pattern=r"FPU feature required by image|CPU (instruction )?capabilities do not match|CPU xsave .*mismatch|killed by signal 4\b",
        cause="the processors differ: the container may use instructions or registers that this host lacks",
        remedy="choose a host with the same or a newer processor, or give both (virtual) machines the same CPU model",
        check="cpu-features",
        thread="podman-container-tools/podman#17496",
    ),
    Rule(
        name="architecture",
        pattern=r"Core march mismatch",
        cause="the images come from another architecture",
        remedy="choose a host of the same architecture",
        check="architecture",
        thread=f"{CRIU}#453",
    ),
    Rule(
        name="rseq",
        pattern=r"rseq: can't restore|failed sys_rseq",
        cause="the programs use restartable sequences and this kernel or CRIU does not know them",
        remedy="a kernel and a CRIU on the target at least as new as the source's: migrate hosts, migrate doctor",
        thread="criu/cr-restore.c",
    ),
    Rule(
        name="memory-place",
        pattern=r"Can't restore \S+ mapping with (0x)?f+4\b",
        cause="memory could not be put where it was: not enough memory, or too many pieces (vm.max_map_count)",
        remedy="raise the container's --memory or free memory on the target; sysctl vm.max_map_count=262144",
        check="memory",
        thread=f"{CRIU}#1784",
    ),
    Rule(
        name="transport-socket",
        pattern=r"Can't bind transport socket",
        cause="two restores ran in one network namespace at the same time",
        remedy="restore one after the other, or with CRIU 4.1 or newer",
        thread=f"{CRIU}#2499",
    ),
)

NETWORK = (
    Rule(
        name="address-missing",
        pattern=r"Can't (bind|connect) inet socket.*Cannot assign requested address",
        cause="a socket was bound to an address that the container does not have here",
        remedy="the container must keep its address: the same network on both hosts, IPv6 included; --network host cannot move",
        check="host-namespace",
        thread=f"{CRIU}#457",
    ),
    Rule(
        name="address-in-use",
        pattern=r"Can't (bind|connect) inet socket.*Address (already )?in use|Can't bind inet socket.*in use",
        cause="the port of a socket is taken on this host",
        remedy="end who has it (ss -tlnp), or run the container with a network of its own (--network bridge)",
        thread=f"{CRIU}#261",
    ),
    Rule(
        name="connection-invalid",
        pattern=r"Can't connect inet socket back: Invalid argument",
        cause="a connection to a loopback or foreign address cannot be made from this host's address",
        remedy="the address of the connection's own end must exist here before the restore (ip address)",
        thread=f"{CRIU}#944",
    ),
    Rule(
        name="link",
        pattern=r"Can't restore link|reported by netlink|Can't find link|link .* not found|netdev\[",
        cause="the container's network interface could not be made here: its name or number is taken, or the kernel refused",
        remedy="migrate doctor on this host (bridge, veth), then move again; by hand: ip link",
        check="network",
        thread=f"{CRIU}#569",
    ),
    Rule(
        name="network-settings",
        pattern=r"Failed to write (?P<name>\S*net/\S+)",
        cause="settings of the container's network ({name}) cannot be written on this host as they were on the source",
        remedy="run it without --cap-add ALL or NET_ADMIN and without --sysctl net...: then its network is made anew, not carried",
        thread="criu/net.c",
    ),
    Rule(
        name="route",
        pattern=r"IP tool failed on (?P<what>\w+)",
        cause="addresses, routes or rules of the container could not be put back ({what})",
        remedy="iproute2 must be installed on this host, and the gateway's network be there",
        thread=f"{CRIU}#1899",
    ),
)

LOCKS = (
    Rule(
        name="nft",
        pattern=r"Lock(ing|ed)? (network|connection|TCP)?.*nftables|built without libnftables|nftables? (is|based)",
        cause="CRIU could not lock the network by nftables",
        remedy="install nftables and load nf_tables on this host, look at `nft list tables`: migrate doctor",
        check="nftables",
        thread="criu/net.c",
    ),
    Rule(
        name="xtables-lock",
        pattern=r"iptables-restore.* failed|Locking network failed: iptables-restore",
        near=r"can't open lock file|xtables\.lock",
        cause=(
            "iptables could not take its lock (/run/xtables.lock): another program holds it, or the container "
            "may not write there"
        ),
        remedy="use CRIU's lock by nftables, as migrate does",
        thread=f"{CRIU}#469",
    ),
    Rule(
        name="iptables-busy",
        pattern=r"exited, status=4|iptables-restore.* failed|Locking network failed: iptables-restore",
        near=r"CHAIN_(USER_)?DEL failed",
        cause=(
            "iptables runs on nftables here and CRIU's rules were there twice: they could not be removed and may "
            "keep the container mute"
        ),
        remedy=(
            "remove the chain CRIU in the container's network namespace (nft list ruleset), use the lock by "
            "nftables, as migrate does"
        ),
        thread=f"{CRIU}#1435",
    ),
    Rule(
        name="iptables",
        pattern=r"iptables-restore.* failed|Locking network failed: iptables-restore",
        cause="CRIU locks the network by iptables, and that failed or is not installed",
        remedy="use CRIU's lock by nftables, as migrate does; or install iptables",
        thread=f"{CRIU}#469",
    ),
)

CGROUPS = (
    Rule(
        name="cpuset-empty",
        pattern=r"cpuset\S*.*No spa|Failed (closing|writing) \S*cpuset\S*: Invalid argument|special cpuset props",
        cause="the cpuset of the container's cgroup names no processors or no memory nodes of this host",
        remedy=(
            "migrate update --cpuset-cpus with processors that this host has; on v1 set cpuset.cpus and "
            "cpuset.mems of the parent first"
        ),
        check="cpuset",
        thread=f"{CRIU}#1894",
    ),
    Rule(
        name="cgroup",
        pattern=r"cg: (Can't move|Failed|couldn't mount|Can't mount)|cpuset\.\S+: Permission denied",
        cause="the container's cgroup could not be made or entered here",
        remedy=(
            "the same version of cgroups on both hosts (migrate hosts); the agent must own its cgroup "
            "(Delegate=yes in its unit)"
        ),
        check="cgroup",
        thread=f"{CRIU}#2000",
    ),
)

LAZY = (
    Rule(
        name="userfaultfd-forbidden",
        pattern=r"Unable to open an? userfaultfd descriptor|Lazy pages are not available",
        near=r"Operation not permitted",
        cause="this kernel forbids userfaultfd in user namespaces",
        remedy="sysctl vm.unprivileged_userfaultfd=1 on the target; without it, migrate moves with a plain restore",
        check="userfaultfd-userns",
        thread=f"{CRIU}#3035",
    ),
    Rule(
        name="lazy-socket",
        pattern=r"connect to lazy-pages\.socket failed|recv_fd error|PID sending error",
        cause="the process that brings memory after the restore was not there, or died",
        remedy="start criu lazy-pages first, with the same --work-dir; migrate has a process of its own for that",
        thread=f"{CRIU}#2808",
    ),
    Rule(
        name="lazy-broken",
        pattern=r"Can't read uffd message|Error during UFFD copy|Error during remaining page",
        cause="memory that was to follow after the restore did not arrive: a task ended, or the stream from the source broke",
        remedy="look at the other end's log; migrate moves memory before the restore unless it is told otherwise",
        thread=f"{CRIU}#1280",
    ),
)

RESTORE = (*FILES, *PROCESSES, *NETWORK, *LOCKS, *CGROUPS, *LAZY)
