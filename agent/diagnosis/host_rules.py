"""Why anything else of a move fails: room, the way between the hosts, processes that died; and what says little. First match counts."""

from agent.diagnosis.rule import CRIU, Rule

ROOM = (
    Rule(
        name="disk-full",
        pattern=r"No space left on device|ENOSPC|Disk quota exceeded",
        cause="a disk or a tmpfs is full",
        remedy="make room there (df -h, migrate system prune) and move again",
        check="disk",
        thread=f"{CRIU}#1407",
    ),
    Rule(
        name="memory",
        pattern=r"Cannot allocate memory|MiB of memory on this host|out of memory|oom-kill",
        cause="not enough memory",
        remedy="free memory on that host, raise the container's --memory, or choose another target",
        check="memory",
        thread=f"{CRIU}#1784",
    ),
    Rule(
        name="read-only",
        pattern=r"Read-only file system",
        cause="a file system that must be written to is read-only",
        remedy="see why (dmesg: errors of the disk remount it so), repair it, move again",
        thread=f"{CRIU}#429",
    ),
)

WAY = (
    Rule(
        name="ssh-refused",
        pattern=r"ssh to .*Connection refused|connect to host .*Connection refused",
        cause="no sshd listens at the target's address and port",
        remedy="start sshd there (systemctl status ssh), and look at address and port in the fleet's configuration",
        thread="openssh:ssh",
    ),
    Rule(
        name="ssh-route",
        pattern=r"(connect to host|ssh to) .*(No route to host|Connection timed out|Network is unreachable|Operation timed out)",
        cause=(
            "the source cannot reach the target's address: a network that is down, a firewall, or an address "
            "that only the coordinator can reach"
        ),
        remedy="from the source: ssh -p PORT ADDRESS; open that port between the hosts",
        thread="openssh:ssh",
    ),
    Rule(
        name="ssh-host-key",
        pattern=r"Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED",
        cause="the target's sshd has another host key than the fleet has pinned",
        remedy="compare fingerprints: if the host was installed anew, put its key into the fleet's configuration",
        thread="openssh:ssh",
    ),
    Rule(
        name="ssh-denied",
        pattern=r"Permission denied \(publickey",
        cause="the target's sshd did not accept the certificate for this move: it lasts minutes",
        remedy="compare the clocks of the hosts, and /etc/migrate/ca.pub on the target with the fleet's ca.pub; move again",
        check="clock",
        thread="openssh:ssh",
    ),
    Rule(
        name="move-forgotten",
        pattern=r"this host has no part in|no migration \S+ waits",
        cause="that host knows nothing of this move (any more): it was rebooted, or its part was undone",
        remedy="the target has forgotten this move; start it again",
        thread="agent/handover/record.py",
    ),
    Rule(
        name="stream-broke",
        pattern=r"stream ended|Broken pipe|Connection reset by|Connection (to \S+ )?closed by|send disconnect|process is gone",
        cause="the stream from source to target broke: the network, ssh, or the target's transfer process ended",
        remedy="look at the network between the hosts and at the target's memory (a killed process), then move again",
        thread=f"{CRIU}#1913",
    ),
    Rule(
        name="transfer-died",
        pattern=r"the transfer process died",
        cause="the process that sends or receives for this move died on that host",
        remedy="look for a kill for lack of memory there (dmesg), then move again",
        thread="agent/transfer/commands.py",
    ),
    Rule(
        name="differs",
        pattern=r"what arrived is not what was sent|differ from the source's|arrived damaged",
        cause="what the target has is not what the source sent: it was changed on the way or by somebody on the target",
        remedy=(
            "move again; if it happens twice, check memory and disk of both hosts, and that nothing else writes "
            "to the container's files"
        ),
        thread="agent/transfer/receiver.py",
    ),
    Rule(
        name="agent-restarted",
        pattern=r"has no tunnel here|agent was restarted",
        cause="the agent was restarted in the middle of the move, and its part of it is gone",
        remedy="see why in its log (journalctl -u migrate-agent), then move again",
        thread="agent/handover/source.py",
    ),
    Rule(
        name="unreachable",
        pattern=r"cannot be reached|did not answer in time|does not answer|no tunnel to",
        cause="the host's agent does not answer: it is down, restarting, or cut off from the coordinator",
        remedy="migrate hosts says who answers; bring it up (systemctl status migrate-agent), then move again",
        thread="migrate/rpc/errors.py",
    ),
    Rule(
        name="stale-epoch",
        pattern=r"has epoch \d+ here, the call has",
        cause="the host knows of a later move of this container than the coordinator does: its database may be an old copy",
        remedy="do not move it; compare migrate inspect with what runs on both hosts, restore the coordinator's newest database",
        thread="agent/handover/source.py",
    ),
)

DEATHS = (
    Rule(
        name="criu-died",
        pattern=r"CRIU died in the middle of the (?P<what>dump|restore)",
        cause="CRIU died in the middle of the {what}: killed (by hand, for lack of memory), or a mistake in it",
        remedy="look for a kill or a crash of criu in dmesg; then move again",
        thread="agent/criu/departure.py",
    ),
    Rule(
        name="filler-died",
        pattern=r"process that fills memory died",
        cause="the process that puts memory in place after the restore died before it was done",
        remedy="look for a kill in dmesg on the target; the container stays frozen and says so: migrate inspect",
        thread="agent/criu/arrival.py",
    ),
    Rule(
        name="monitor-died",
        pattern=r"monitor (has )?(died|ended|is gone|closed)|lost its monitor",
        cause="the process that holds the container on that host (its monitor) died",
        remedy="the container runs on and gets another one; look for a kill in dmesg, then move again",
        thread="agent/engine/launch.py",
    ),
)

# They say that something failed, and not why.
GENERAL = (
    Rule(
        name="only-a-path",
        pattern=r"criu failed: type (?P<type>\w+) errno \d+|CRIU (checkpoint|restor)ing failed -?\d+",
        cause="this message of runc or crun says only that CRIU failed ({type}); the reason is in CRIU's own log",
        remedy="give that log to `migrate doctor`: the path behind `path=` or `log file:`, dump.log or restore.log",
        thread=f"{CRIU}#1128",
        general=True,
    ),
    Rule(
        name="core-died",
        pattern=r"\d+ killed by signal (?P<signal>\d+)",
        cause="a process was killed (signal {signal}) while it was restored; why is in a line before, or in dmesg",
        remedy="look at the lines around it and at dmesg of the host (out of memory, a denial)",
        thread=f"{CRIU}#1423",
        general=True,
    ),
    Rule(
        name="permission",
        pattern=r"Operation not permitted|Permission denied",
        cause="the kernel or a security module forbade something to CRIU",
        remedy="CRIU must run as root with all capabilities: migrate doctor; look for denials in dmesg and the audit log",
        thread=f"{CRIU}#122",
        general=True,
    ),
)

HOST = (*ROOM, *WAY, *DEATHS)
