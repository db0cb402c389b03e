"""The source's transfer process: `python -m agent.transfer.sender --control-fd N DIRECTORY`.

One a move. The agent gives commands (commands.py), the other end of the stream is a receiver on the target (frames.py). When the agent
goes away this ends, ssh with it: the target then sees the stream end and waits to be told what to do.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent.criu import images
from agent.engine import throttle
from agent.engine.cgroup import Tasks
from agent.errors import TransferError
from agent.linux import openat2
from agent.memory import areas, withheld
from agent.memory.policy import Goal
from agent.memory.ranges import NOTHING, Ranges, ranges, subtract
from agent.storage.images import ImageStore
from agent.storage.tree import TreeSource
from agent.transfer import codec_choice, commands, holding, lanes, later, pages, room, ssh
from agent.transfer.bandwidth import Bandwidth
from agent.transfer.commands import Progress
from agent.transfer.frames import FRAME_BYTES, PROTOCOL, Answers, BrokenStream, Kind
from agent.transfer.kept import Keeper
from agent.transfer.memory_store import withheld_file
from agent.transfer.page_index import PageIndex
from agent.transfer.precopy import Precopy
from agent.transfer.rounds import Rounds
from agent.transfer.writer import Writer

Command = dict[str, Any]
Facts = Mapping[str, Any]
_REPORT_EVERY_S = 0.2
MAX_TREE_ROUNDS = 5
SMALL_ROUND_BYTES = 1 << 20  # the freeze can do that much


class Sender:
    """State of one move's stream."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._tunnels: list[ssh.BulkTunnel] = []  # the first one has the headers, and the answers
        self._writer: Writer | None = None
        self._answers: Answers | None = None
        self._trees: dict[int, TreeSource] = {}
        self._watch = False  # let the kernel say what changes in them
        self._last_round: Counter[int] = Counter()  # bytes that each tree's sent, the first one not counted
        self._ahead: set[int] = set()  # trees that were sent while CRIU dumped
        self._bandwidth = Bandwidth()
        self._switch = threading.Event()  # a move that holds may switch over
        self._precopy: Precopy | None = None
        self._kept = PageIndex()  # what the target has of an earlier move
        self._keeper: Keeper | None = None
        self._deltas = True
        self._shared = False  # the target completes CRIU's images of shared memory: an older one would restore zeros
        self._kept_back: dict[int, later.Pairs] = {}  # by task: what the target lacks while the container runs there
        self._pycriu: Any = None
        self._here: dict[int, int] = {}  # at the last look: pid inside the container -> pid on this host
        self._withheld: dict[int, Ranges] = {}  # by pid inside: areas that CRIU is not shown
        self._rest_pages = 0
        self._log_sizes: dict[tuple[str, int], int] = {}  # name, inode -> bytes that the target has

    def handlers(self) -> dict[str, commands.Handler]:
        handlers = {
            "key": self._key,
            "open": self._open,
            "layers": self._layers,
            "precopy": self._precopy_rounds,
            "hold": self._hold,
            "look": self._last_look,
            "files": self._files_ahead,
            "rest": self._rest,
            "final": self._final,
            "keep": self._keep,
            "later": self._send_later,
        }
        return {name: self._explained(handler) for name, handler in handlers.items()}

    def told(self) -> dict[str, Callable[[Command], object]]:
        return {
            "bandwidth": lambda message: self._bandwidth.set(int(message["rate"])),
            "switch": lambda _message: self._switch.set(),
        }

    def _explained(self, handler: commands.Handler) -> commands.Handler:
        """A target that gives up says why and goes: we notice by the pipe that breaks, the reason waits to be read."""

        def explained(command: Command, progress: Progress) -> Facts:
            try:
                return handler(command, progress)
            except BrokenStream as exc:
                try:
                    while True:
                        self._answer()  # those to what was sent before; the last is a no, or the end of the stream
                except TransferError as reason:
                    raise reason from exc

        return explained

    def close(self) -> None:
        for tree in self._trees.values():
            tree.close()
        if self._precopy:
            self._precopy.close()
        ssh.close_all(self._tunnels)
        if self._writer:
            self._writer.close()
        if self._keeper:
            self._keeper.close()

    # ------------------------------------------------------------ tunnel

    def _key(self, command: Command, progress: Progress) -> Facts:
        del command, progress
        return {"public_key": ssh.generate_key(self._directory / "ssh")}

    def _open(self, command: Command, progress: Progress) -> Facts:
        del progress
        self._pycriu = images.load(Path(command["pycriu_path"]))  # not in the freeze: it takes a fifth of a second
        self._tunnels = ssh.open_several(
            command["connections"],
            self._directory / "ssh",
            certificate=command["certificate"],
            address=command["address"],
            port=command["port"],
            user=command["user"],
            host_keys=command["host_keys"],
        )
        first, tx_fds = self._tunnels[0], [tunnel.tx_fd for tunnel in self._tunnels]
        if len(tx_fds) > 1:
            lanes.introduce(tx_fds)
        self._bandwidth.set(command["bandwidth"])
        choice = codec_choice.choice(command["compress"], self._bandwidth)
        self._writer = Writer(*tx_fds, choice=choice, bandwidth=self._bandwidth)
        self._writer.label = "images"
        self._answers = Answers(first.rx_fd)
        began = time.monotonic()
        self._writer.send_json(Kind.HELLO, {"protocol": PROTOCOL, "migration": command["migration"], "kept": True})
        answer = self._answer()
        index = self._answers.read_exactly(int(answer["kept_bytes"]))
        if index:
            self._kept = PageIndex.unpacked(index, places=False)
            sent = self._writer.sent
            sent.raw["kept_index"] += len(index)
            sent.wire["kept_index"] += len(index)
            sent.codecs["none"] += len(index)
        self._shared = bool(answer.get("shared"))
        self._deltas = command["compress"] != "none"  # who wants nothing packed does not want to pay for this either
        if command["keep_bytes"]:
            self._keeper = Keeper(Path(command["keep"]), command["keep_bytes"])
        self._kept_back = {int(task): pairs for task, pairs in answer["missing"]}
        return {
            "connect_s": first.connect_s,
            "round_trip_s": time.monotonic() - began,
            "cipher": first.cipher,
        }

    # ------------------------------------------------------------ before the freeze

    def _layers(self, command: Command, progress: Progress) -> Facts:
        """Send each image layer in `layers` as the blob it was imported as; the target verifies its diff id."""
        writer, before = self._stream("layers"), self._stream().sent_bytes
        store = ImageStore(Path(command["store"]))
        for diff_id in command["layers"]:
            blob, size = store.open_layer(diff_id)
            report = _Reporter(progress, f"layer {diff_id[7:19]}", size)
            writer.send_json(Kind.LAYER, {"diff_id": diff_id, "size": size})
            with blob:
                while chunk := blob.read(FRAME_BYTES):
                    writer.send(Kind.LAYER, chunk)
                    report.add(len(chunk))
            writer.send_json(Kind.LAYER_END, {"diff_id": diff_id})
            self._answer()
        return {"sent_bytes": writer.sent_bytes - before}

    def _precopy_rounds(self, command: Command, progress: Progress) -> Facts:
        """Send what can be sent while the container runs: its writable layer, its log, its memory in rounds."""
        writer, before = self._stream("precopy"), self._stream().sent_bytes
        self._watch = command["watch"]
        self._tree_rounds(command["roots"], progress)
        self._send_logs(Path(command["logs"]))
        self._foresee(command)  # here, too: a container that came a moment ago has its memory by now
        layer_bytes = writer.sent_bytes - before

        def after_round(facts: Mapping[str, Any]) -> None:
            """Files go along with the rounds of memory, where that costs no look at all of them; not in the time that was measured."""
            progress(facts)
            for number, tree in self._trees.items():
                if tree.watched:
                    self._send_tree(number, command["roots"][number], progress)

        self._precopy = self._memory(
            Path(command["freezer"]), command["tracker"], shared=command["shared"] and self._shared
        )
        plan = throttle.Plan(**command["throttle"]) if command["throttle"] else None
        rounds = Rounds(self._precopy, writer, Goal(**command["goal"]), plan)
        memory = rounds.run(confirm=self._answer, progress=after_round)
        self._foresee(command)
        self._precopy.settle()
        return {"layer_bytes": layer_bytes, "memory": memory}

    def _hold(self, command: Command, progress: Progress) -> Facts:
        """What changes goes on being sent, where that costs no look at all of it, until `switch` is told."""
        writer = self._stream("precopy")

        def send_round() -> int:
            for number, tree in self._trees.items():
                if tree.watched:
                    self._send_tree(number, command["roots"][number], progress)
            if self._precopy is None or not self._precopy.way:
                return 0
            sent = self._precopy.send_round()
            writer.send_json(Kind.ROUND, {})
            self._precopy.owe(self._answer().get("lacking", {}))
            return sent.pages

        facts = holding.hold(self._switch, send_round, lambda: writer.sent_bytes, progress)
        if self._precopy is not None:
            self._precopy.settle()
        return facts

    def _foresee(self, command: Command) -> None:
        """Is there room for what is still to come, on both sides? Raises StorageError or TransferError where there is not."""
        resident = [areas.resident_bytes(pid) for pid in Tasks(Path(command["freezer"])).procs()]
        private, shared = (sum(each[part] for each in resident) for part in range(2))
        images_bytes = room.IMAGES_BYTES + len(resident) * room.IMAGES_TASK_BYTES
        in_images = shared if command["tracker"] else shared + private  # CRIU writes it itself
        room.at_source(command["host"], self._directory / "stage", images_bytes + in_images)
        tree_bytes = [self._last_round[number] for number in range(len(command["roots"]))]
        expected = room.Expected(memory_bytes=private + shared, images_bytes=images_bytes, tree_bytes=tree_bytes)
        self._stream().send_json(Kind.ROUND, {"expected": dataclasses.asdict(expected)})
        self._answer()

    def _tree_rounds(self, roots: list[Any], progress: Progress) -> None:
        """All files; then, where the kernel says what has changed, again while each round has less to send than the one before."""
        sent = 0
        for number_of_round in range(MAX_TREE_ROUNDS):
            before, sent = sent, 0
            for number, root in enumerate(roots):
                if number_of_round == 0 or self._trees[number].watched:
                    sent += self._send_tree(number, root, progress)
            if sent < SMALL_ROUND_BYTES or (number_of_round and sent > before / 2):
                break

    # ------------------------------------------------------------ while frozen

    def _last_look(self, command: Command, progress: Progress) -> Facts:
        """All tasks stand still and CRIU waits: see what was written last, say what CRIU need not see.

        The trackers stay until the sender ends: to end one takes as long as its task has pages, and CRIU does not mind (docs/window.md).
        """
        del progress
        precopy = self._memory_sent()
        precopy.last_look()
        marks = [_mark("looked")]
        images_dir = Path(command["images_dir"])
        listed: dict[int, Ranges] = {}
        self._here = pages.tasks_by_inner_pid(command["pids"])
        for task, pid in self._here.items() if command["withheld"] else ():
            areas = withheld.look(pid)
            if len(areas):
                listed[pid] = self._withheld[task] = areas
                withheld_file(images_dir, task).write_bytes(areas.tobytes())
        if command["withheld"]:
            shared = precopy.shared.withhold(self._here.values()) if precopy.shared else []
            Path(command["withheld"]).write_bytes(withheld.listing(listed, shared))
            marks.append(_mark("withheld"))
        return {"marks": marks}

    def _rest(self, command: Command, progress: Progress) -> Facts:
        """While CRIU dumps what it is shown: send what the target lacks of the rest."""
        del progress
        precopy, begun = self._memory_sent(), _mark("begin sent withheld memory")
        if not self._withheld and not (precopy.shared and precopy.shared.withheld):
            return {"marks": []}
        self._stream("memory")
        if precopy.shared:
            self._rest_pages += precopy.shared.send_frozen(Path(command["images_dir"]))
        for task, areas_of_task in self._withheld.items():
            lacking = precopy.lacking_of_withheld(task, self._here[task], areas_of_task)
            self._rest_pages += self._send_or_keep_back(task, lacking, keep_back=command["postcopy"])
        return {"marks": [begun, _mark("sent withheld memory")]}

    def _files_ahead(self, command: Command, progress: Progress) -> Facts:
        """CRIU dumps tasks that stand still: their files are as they stay, but for what CRIU adds, which the watch names. Trees that
        would have to be looked at whole once more wait for final.
        """
        self._stream("writable_layer")
        for number, root in enumerate(command["roots"]):
            tree = self._trees.get(number)
            if tree is not None and tree.watched:
                self._send_tree(number, root, progress, held=command["held"][number], still=True)
                self._ahead.add(number)
        return {}

    def _final(self, command: Command, progress: Progress) -> Facts:
        """Send the images, the memory left in the tasks, the last of the writable layer; the target confirms all."""
        writer = self._stream("images")
        marks: list[dict[str, Any]] = []
        images_dir = Path(command["images_dir"])

        def part(name: str, following: str) -> None:
            marks.append(_mark(f"sent {name}"))
            writer.label = following

        for path in sorted(images_dir.iterdir()):
            if path.suffix in (".img", ".json", ".bin"):
                self._send_file(path)
        part("images", "memory")
        precopy = self._memory_sent()
        page_count = self._rest_pages + self._send_memory(images_dir, keep_back=command["postcopy"])
        part("memory", "writable_layer")
        for number, root in enumerate(command["roots"]):
            held = None if number in self._ahead else command["held"][number]
            self._send_tree(number, root, progress, held=held, last=True)
            if number == 0:
                self._send_logs(Path(command["logs"]))
                part("writable_layer", "volumes")
        if len(command["roots"]) > 1:
            part("volumes", "volumes")
        digests = [tree.digest() for _, tree in sorted(self._trees.items())]
        marks.append(_mark("digested"))
        while True:
            writer.label = "images"
            writer.send(Kind.DONE, lambda digest: json.dumps({"digest": digest, "tree_digests": digests}).encode())
            answer = self._answer()
            if not (lacking := answer.get("lacking")):
                break
            writer.label = "memory"
            page_count += precopy.send_again(lacking)
        marks += [_mark("compared", ago_s=answer["sealed_s"]), _mark("confirmed")]
        writer.flush()  # what is in the books of the last frame
        return {
            "marks": marks,
            "sent_bytes": dict(writer.sent.wire),
            "travelled": {
                "raw_bytes": dict(writer.sent.raw),
                "codec_bytes": dict(writer.sent.codecs),
                "skipped_bytes": dict(precopy.skipped),
            },
            "memory_pages": page_count,
            "digest": answer["digest"],
            "later_bytes": later.Rest(self._kept_back).missing_bytes,
        }

    def _keep(self, command: Command, progress: Progress) -> Facts:
        """The container has left: make what was kept beside its move ready for the day it comes back."""
        del command, progress
        return {"kept_bytes": self._keeper.finish() if self._keeper else 0}

    def _memory(self, freezer: Path, way: str, *, shared: bool = False) -> Precopy:
        return Precopy(
            self._stream(), freezer, way, kept=self._kept, keeper=self._keeper, deltas=self._deltas, shared=shared
        )

    def _send_memory(self, images_dir: Path, *, keep_back: bool) -> int:
        """What CRIU was shown and has left behind."""
        page_count = 0
        for page_map in images.page_maps(self._pycriu, images_dir):
            left = ranges((run.start, run.end) for run in page_map.left_behind())
            wanted = subtract(left, self._withheld.get(page_map.task, NOTHING))
            if not len(wanted):
                continue
            if page_map.task not in self._here:
                raise TransferError(f"task {page_map.task} of the dump is not in the container's cgroup")
            page_count += self._send_or_keep_back(
                page_map.task, self._memory_sent().lacking(self._here[page_map.task], wanted), keep_back=keep_back
            )
        return page_count

    def _send_or_keep_back(self, task: int, lacking: Ranges, *, keep_back: bool) -> int:
        """Returns pages sent."""
        precopy, pid = self._memory_sent(), self._here[task]
        if not keep_back:
            return precopy.send_frozen(task, pid, lacking)
        precopy.outdate(task, pid, lacking)
        self._kept_back.setdefault(task, []).extend(later.keep_back(self._stream(), task, lacking))
        return 0

    def _send_later(self, command: Command, progress: Progress) -> Facts:
        """Post-copy: what was kept back, or what the target said it lacks when this tunnel was opened."""
        assert self._answers is not None
        writer = self._stream("memory")
        memory = _FrozenMemory(self._memory_sent(), self._here or pages.tasks_by_inner_pid(command["pids"]))
        sent = later.send_rest(later.Rest(self._kept_back), writer, self._answer, self._answers.ready, memory, progress)
        writer.flush()  # what is in the books of the last frame
        return {**sent, "wire_bytes": writer.sent.wire["memory"]}

    def _memory_sent(self) -> Precopy:
        if self._precopy is None:
            self._precopy = self._memory(Path("/"), "")  # nothing was sent ahead
        return self._precopy

    def _send_logs(self, directory: Path) -> None:
        """What the container has said so far; of a log that was sent before, only what was added."""
        for path in sorted(directory.glob("container.log*")):
            status = path.stat()
            known = self._log_sizes.get((path.name, status.st_ino), 0)
            offset = known if known <= status.st_size else 0
            self._send_file(path, kind="log", offset=offset)
            self._log_sizes = {key: size for key, size in self._log_sizes.items() if key[0] != path.name}
            self._log_sizes[path.name, status.st_ino] = status.st_size

    def _send_file(self, path: Path, *, kind: str = "image", offset: int = 0) -> None:
        writer = self._stream()
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            writer.send_json(Kind.FILE, {"name": path.name, "size": size, "kind": kind, "offset": offset})
            file.seek(offset)
            while chunk := file.read(FRAME_BYTES):
                writer.send(Kind.FILE_DATA, chunk)

    def _send_tree(
        self,
        number: int,
        root: str | dict[str, Any],
        progress: Progress,
        *,
        held: Mapping[str, list[list[int]]] | None = None,
        still: bool = False,
        last: bool = False,
    ) -> int:
        """One round; returns its bytes. `held`: inside.Held of the tasks that stand still."""
        if first := number not in self._trees:
            self._trees[number] = TreeSource(self._root(root), watch=self._watch)
        tree, sent = self._trees[number], 0
        report = _Reporter(progress, f"mount {number}" if number else "writable layer", 0)
        for frame in tree.delta(*_held(held), still=still, last=last):
            self._stream().send(Kind.TREE, frame, task=number)
            sent += len(frame)
            report.add(len(frame))
        self._last_round[number] = 0 if first else sent
        return sent

    def _root(self, root: str | dict[str, Any]) -> Path | int:
        """A directory of the host, or `target` in the container whose init is `pid`: no link leads out of that one's root."""
        if isinstance(root, str):
            return Path(root)
        top = os.open(f"/proc/{root['pid']}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return openat2.open_in_root(top, os.fsencode(root["target"]), os.O_PATH | os.O_DIRECTORY)  # held for life
        finally:
            os.close(top)

    # ------------------------------------------------------------ parts

    def _stream(self, label: str = "") -> Writer:
        """`label`: of what is sent from now on; "" = as before."""
        if self._writer is None:
            raise TransferError("the tunnel is not open", touched="nothing")
        self._writer.label = label or self._writer.label
        return self._writer

    def _answer(self) -> dict[str, Any]:
        assert self._answers is not None
        tunnel = self._tunnels[0]
        return self._answers.next(lambda: tunnel.failure("the stream ended").message)


def _held(found: Mapping[str, list[list[int]]] | None) -> list[list[tuple[int, int]]]:
    """Of Held as JSON carries it: `unseen`, `open`."""
    return (
        [[(int(device), int(inode)) for device, inode in found[name]] for name in ("unseen", "open")] if found else []
    )


def _mark(name: str, *, ago_s: float = 0.0) -> dict[str, Any]:
    return {"name": name, "unix_ns": time.time_ns() - int(ago_s * 1e9)}


def _has_memory(pid: int) -> bool:
    """Not so once it has been killed, be its parent told of that or not."""
    try:
        return "VmSize:" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


class _FrozenMemory:
    """later.Memory. `here`: pids on this host by those inside."""

    def __init__(self, precopy: Precopy, here: Mapping[int, int]) -> None:
        self._precopy, self._here = precopy, here

    def send(self, task: int, start: int, end: int) -> int | None:
        if task not in self._here:
            return None
        try:
            return self._precopy.send_frozen(task, self._here[task], ranges([(start, end)]))
        except OSError:
            if _has_memory(self._here[task]):
                raise
            return None

    def distrust(self, lacking: later.Lacking) -> None:
        self._precopy.distrust(lacking)


class _Reporter:
    """Progress a few times a second."""

    def __init__(self, progress: Progress, text: str, total_bytes: int) -> None:
        self._progress, self._text, self._total = progress, text, total_bytes
        self._done, self._last = 0, time.monotonic()

    def add(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._last >= _REPORT_EVERY_S:
            self._last = now
            self._progress({"text": self._text, "done_bytes": self._done, "total_bytes": self._total})


def main() -> None:
    parser = argparse.ArgumentParser(prog="agent.transfer.sender")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    sender = Sender(arguments.directory)
    try:
        with socket.socket(fileno=arguments.control_fd) as connection:
            commands.serve(connection, sender.handlers(), sender.told())
    finally:
        sender.close()


if __name__ == "__main__":
    main()
