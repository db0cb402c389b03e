"""Frames on their way out: packed by a few threads, written by one, in the order in which they were given.

    caller ── send() ──► queue (bounded) ──► writer thread ── vmsplice, writev ──► ssh
                 └─ codec threads ─┘   a frame waits in the queue until it is packed

The caller fills buffers that are used again and again (`slot()`): when all of them are on their way it waits, so a slow link
reaches back to whoever reads the container's memory. All bulk work is in calls that release the interpreter's lock.

Large frames that are not packed go into the pipe as they lie in their buffers, not copied: a buffer is free again when so much has gone
into the pipe after it that ssh must have read it.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import queue
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash

from agent.transfer import codec_choice, codecs
from agent.transfer.bandwidth import Bandwidth
from agent.transfer.codec_choice import Choice
from agent.transfer.codecs import Codec, Setting
from agent.transfer.frames import HEADER, LANE_SHIFT, MAGIC, Kind
from agent.transfer.lanes import Body, Lanes

BATCH_BYTES = 4 << 20  # what is read at once: what Python and numpy cost a call is not to be paid for each frame
SLOTS = 10  # buffers of a batch each: what is read ahead of the link, and of the disk (kept.py)
_QUEUE = 16  # frames that are not in a slot; they carry their own megabyte
# What may be packed. The rest is small, or named by content that is packed already.
_PACKED = frozenset({Kind.LAYER, Kind.TREE, Kind.MEMORY, Kind.FILE_DATA})
_CLOSE_LIMIT_S = 5.0


class Slot:
    """A buffer of BATCH_BYTES, page aligned. Whoever has something to do with its content holds it; free again when nobody does."""

    def __init__(self, free: queue.LifoQueue[Slot]) -> None:
        area = mmap.mmap(-1, BATCH_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # a kernel without huge pages
            area.madvise(mmap.MADV_HUGEPAGE)
        self.view = memoryview(area)
        self.words = np.frombuffer(self.view, np.uint64)
        self.address = self.words.ctypes.data
        self._free, self._lock, self._holders = free, threading.Lock(), 0

    def hold(self) -> None:
        with self._lock:
            self._holders += 1

    def release(self) -> None:
        with self._lock:
            self._holders -= 1
            if self._holders:
                return
        self._free.put(self)


@dataclass
class Sent:
    """What has gone, in bytes. `raw`, `wire`: by label, before and after packing; `codecs`: on the wire, by codec."""

    raw: Counter[str] = field(default_factory=Counter)
    wire: Counter[str] = field(default_factory=Counter)
    codecs: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Item:
    kind: Kind
    task: int
    address: int
    size: int
    body: Body | Callable[[str], bytes]  # or what makes it of the running digest
    packed: Future[tuple[Codec, Body]] | None
    slot: Slot | None
    label: str
    done: threading.Event | None = None  # nothing to send: somebody waits until everything before is written


class Writer:
    """Frames into a descriptor, or several (lanes.py), with the running digest that DONE carries. One thread calls it."""

    def __init__(self, *fds: int, choice: Choice | None = None, bandwidth: Bandwidth | None = None) -> None:
        self._choice = choice or codec_choice.Fixed(codecs.RAW)
        self._bandwidth = bandwidth or Bandwidth()
        self._lanes = Lanes(fds, self._bandwidth, self._choice.wrote)
        self._digest = xxhash.xxh3_128()
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(_QUEUE)  # slots are bounded by themselves
        self._free: queue.LifoQueue[Slot] = queue.LifoQueue()  # the last one used is still in the processor's cache
        self._slots = 0
        self._pool = ThreadPoolExecutor(codec_choice.threads(), "codec")
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self.label = ""  # what is being sent, for the books
        self.sent = Sent()
        self.sent_bytes = 0  # on the wire, headers included; complete when the target has answered

    @property
    def digest(self) -> str:
        """Of every frame given so far; waits until they are written."""
        self.flush()
        return self._digest.hexdigest()

    def slot(self) -> Slot:
        """A buffer to fill, held once for the caller. Waits for a free one: back-pressure."""
        while True:
            try:
                slot = self._free.get(timeout=1.0 if self._slots == SLOTS else 0)
            except queue.Empty:
                self._raise()
                if self._slots == SLOTS:
                    continue
                self._slots += 1
                slot = Slot(self._free)
            slot.hold()
            return slot

    def send(
        self,
        kind: Kind,
        payload: Body | Callable[[str], bytes] = b"",
        *,
        task: int = 0,
        address: int = 0,
        size: int = 0,
        slot: Slot | None = None,
        setting: Setting | None = None,
    ) -> None:
        """Queue one frame. A memoryview of `slot` is read later, any other is copied now; a function gets the digest of all before.
        `setting`: how this one is packed, whatever the choice is.

        Raises BrokenStream when the other side is gone; of the frames before this one, too.
        """
        self._raise()
        if isinstance(payload, memoryview) and slot is None:
            payload = bytes(payload)
        packed = None
        if (kind in _PACKED or setting) and not callable(payload):
            setting = setting or self._choice.setting()
            if setting.codec != Codec.NONE and len(payload) >= codecs.SMALLEST_BYTES:
                packed = self._pool.submit(codecs.encode, setting, payload)
        if slot is not None:
            slot.hold()
        self._put(_Item(kind, task, address, size, payload, packed, slot, self.label))

    def send_json(self, kind: Kind, value: Mapping[str, Any]) -> None:
        self.send(kind, json.dumps(value).encode())

    def flush(self) -> None:
        """Returns when everything is written. Raises as send()."""
        done = threading.Event()
        self._put(_Item(Kind.DONE, 0, 0, 0, b"", None, None, "", done))
        done.wait()
        self._raise()

    def close(self) -> None:
        """Give up what is queued; the descriptor is the caller's, and closed first where somebody may block in it. Idempotent."""
        self._error = self._error or OSError("the stream was given up")
        self._bandwidth.set(0)  # whoever waits for leave to write
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._lanes.close()
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(_CLOSE_LIMIT_S)
            self._thread = None

    # ------------------------------------------------------------ the writer thread

    def _put(self, item: _Item) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
            self._thread.start()
        if item.slot is None:
            self._room.acquire()
        self._queue.put(item)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                if item.done is not None:
                    self._lanes.flush()
                elif self._error is None:
                    self._write(item)
            except Exception as exc:  # noqa: BLE001  raised again in the caller's thread, by its next call
                self._error = exc
            finally:
                if item.slot is None:
                    self._room.release()
                else:
                    if item.packed is not None:
                        wait((item.packed,))  # until nobody reads the buffer any more
                    item.slot.release()
                if item.done is not None:
                    item.done.set()

    def _write(self, item: _Item) -> None:
        raw = item.body(self._digest.hexdigest()) if callable(item.body) else item.body
        codec, body = (Codec.NONE, raw) if item.packed is None else item.packed.result()
        if item.packed is not None and item.kind != Kind.DELTA:
            self._choice.packed(len(raw), len(body))
        size = item.size if codec == Codec.NONE else len(raw)
        check = xxhash.xxh3_64_intdigest(raw)
        lane = self._lanes.choose(len(body))
        header = HEADER.pack(
            MAGIC, item.kind, codec | lane << LANE_SHIFT, item.task, item.address, len(body), size, check
        )
        self._digest.update(header)
        # Before it is written: who has the target's answer finds it counted.
        wire = len(header) + len(body)
        self.sent_bytes += wire
        self.sent.raw[item.label] += len(raw)
        self.sent.wire[item.label] += wire
        self.sent.codecs[("delta, " if item.kind == Kind.DELTA else "") + codec.name.lower()] += wire
        self._lanes.write(lane, header, body, item.slot if codec == Codec.NONE else None)

    def _raise(self) -> None:
        if (error := self._error or self._lanes.error) is not None:
            raise error
