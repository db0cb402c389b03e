"""What processes have open or mapped that CRIU cannot save, or takes long to. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from agent.scan.finding import Blocker
from agent.scan.place import of_file
from agent.scan.procfs import OpenFile, Snapshot, Task

SHOWN_BYTES = 16 << 20  # a deleted file from which on its time in the freeze is worth a word: 16 MiB take some 20 ms
_ANONYMOUS = "anon_inode:"
# criu/files.c, dump_one_file: what it has a way for.
_SAVED = {
    "[eventfd]", "[eventpoll]", "inotify", "[inotify]", "[fanotify]", "[signalfd]", "[timerfd]", "[pidfd]", "bpf-map", "[bpf-map]",
}  # fmt: skip
_NAMED = {
    "[io_uring]": (
        "io-uring",
        "io_uring: the kernel gives nobody the state of its rings, and CRIU has no support for it",
        "switch io_uring off in the program (io-uring no, --no-io-uring, UV_USE_IO_URING=0), or sysctl kernel.io_uring_disabled=2",
    ),
    "[perf_event]": (
        "perf-event",
        "a performance counter is open: it counts on this host's processors",
        "end the profiler (perf, a profiling agent), or switch it off",
    ),
    "[userfaultfd]": (
        "userfaultfd",
        "the program handles its own page faults (userfaultfd): CRIU cannot save what it has registered",
        "switch that off in the program (QEMU's post-copy, a garbage collector, CRIU itself)",
    ),
}
_USUAL_DEVICES = {(1, minor) for minor in (3, 5, 7, 8, 9, 11)} | {(5, minor) for minor in (0, 1, 2)}
_TERMINALS = (4, *range(136, 144))
_NOT_FILES = ("/memfd:", "/dev/zero", "/SYSV", "/secretmem", "/[aio]", "/anon_hugepage")
_GPUS = ("/dev/nvidia", "/dev/dri/", "/dev/kfd")


def check(seen: Snapshot, ghost_limit: int) -> Iterator[Blocker]:
    """`ghost_limit`: bytes of a deleted file that CRIU still carries."""
    terminals = {mount.device for mount in seen.mounts if mount.kind == "devpts"}
    told: set[tuple[tuple[int, int], int]] = set()
    for task in seen.tasks:
        for file in (*task.files, *task.mapped):
            yield from _kernel_object(task, file)
            yield from _device(task, file)
            yield from _terminal(task, file, terminals)
            yield from _memory(task, file, seen)
            yield from _deleted(task, file, ghost_limit, told)


def _kernel_object(task: Task, file: OpenFile) -> Iterator[Blocker]:
    if not file.target.startswith(_ANONYMOUS):
        return
    name = file.target.removeprefix(_ANONYMOUS)
    if name in _NAMED:
        check_name, what, remedy = _NAMED[name]
        yield of_file(task, file, check_name, what, remedy)
    elif name not in _SAVED:
        yield of_file(
            task,
            file,
            "kernel-object",
            f"{file.target} is open: CRIU has no way to save that",
            "end that program, or let it close this",
        )


def _device(task: Task, file: OpenFile) -> Iterator[Blocker]:
    if file.kind not in ("char", "block"):
        return
    major, _ = file.number
    if file.kind == "char" and (major in _TERMINALS or file.number in _USUAL_DEVICES):
        return
    shown = f"{file.kind[0]} {file.number[0]}:{file.number[1]}"
    gpu = file.target.startswith(_GPUS)
    what = f"the device {file.target} ({shown}) is {'mapped' if file.descriptor == 'mapped' else 'open'}"
    yield of_file(
        task,
        file,
        "device-open",
        f"{what}: {'the state of the GPU is in the GPU' if gpu else 'what it is doing is in the hardware and drivers of this host'}",
        "end that program, or let it close the device",
    )


def _terminal(task: Task, file: OpenFile, terminals: set[tuple[int, int]]) -> Iterator[Blocker]:
    if file.target == "/dev/tty" and not task.leads:
        yield of_file(
            task,
            file,
            "terminal",
            "/dev/tty is open while another job than its own is in the foreground: CRIU cannot save that",
            "wait until the shell is at its prompt again, or stop the job there (ctrl-z)",
        )
    pty = file.kind == "char" and 136 <= file.number[0] < 144
    if pty and terminals and file.device not in terminals:
        yield of_file(
            task,
            file,
            "pty-peer",
            f"the terminal {file.target} is not one of the container's own: its other end is with a program outside",
            "close it in the program; a terminal of the container's own is what `run -it` and `script` give",
        )


def _memory(task: Task, file: OpenFile, seen: Snapshot) -> Iterator[Blocker]:
    if file.target.startswith("/secretmem"):
        yield of_file(
            task,
            file,
            "memfd-secret",
            "it keeps memory that nobody else may read, the kernel included (memfd_secret)",
            "switch secret memory off in the program; there is no way to copy it",
        )
    ipc = task.namespaces.get("ipc")
    if file.target.startswith("/SYSV") and ipc and ipc == seen.host.get("ipc"):
        yield of_file(
            task,
            file,
            "sysv-ipc",
            "a SysV segment of the host is mapped: others of the host may use it, and it stays there",
            "run the container without --ipc host",
        )


def _deleted(task: Task, file: OpenFile, ghost_limit: int, told: set[tuple[tuple[int, int], int]]) -> Iterator[Blocker]:
    """Each file once, whoever has it."""
    if file.kind != "regular" or file.links or file.target.startswith(_NOT_FILES) or file.size < SHOWN_BYTES:
        return
    if (file.device, file.inode) in told:
        return
    told.add((file.device, file.inode))
    mapped = file.descriptor == "mapped"
    refused = file.size > ghost_limit
    limit = f", and takes no more than {ghost_limit >> 20} MiB" if refused else ""
    yield of_file(
        task,
        file,
        "deleted-mapping" if mapped else "deleted-file",
        f"{file.target.removesuffix(' (deleted)')} is deleted and still {'mapped' if mapped else 'open'}, {file.size >> 20} MiB: "
        f"CRIU carries it in its images while the container stands still{limit}",
        "let the program open it anew or truncate it (log rotation: copytruncate, or a signal to reopen)",
        warning=not refused,
    )
