"""Long work on images as a stream of events: it runs in a thread, the call's own thread sends what it reports."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator

import grpc

from agent.errors import AgentError
from agent.storage.ingest import LayerProgress, Report
from protos import agent_pb2 as pb
from protos import types_pb2

INTERVAL_NS = 100_000_000  # of lines about one layer that say the same but for the bytes


class GoneAway(AgentError):
    """The caller has cancelled the call."""

    code = "cancelled"


def streamed(context: grpc.ServicerContext, work: Callable[[Report], list[pb.ImageEvent]]) -> Iterator[pb.ImageEvent]:
    """What `work` reports, then what it returns, or its error. If the caller goes away, `work`'s next report raises."""
    events: queue.Queue[pb.ImageEvent | BaseException | None] = queue.Queue()
    gone = threading.Event()
    latest: dict[str, tuple[str, int]] = {}

    def report(progress: LayerProgress) -> None:
        if gone.is_set():
            raise GoneAway("the caller went away")
        now = time.monotonic_ns()
        text, then = latest.get(progress.layer, ("", 0))
        if progress.text != text or now - then >= INTERVAL_NS:
            latest[progress.layer] = (progress.text, now)
            events.put(_event(progress))

    def run() -> None:
        try:
            for event in work(report):
                events.put(event)
            events.put(None)
        except BaseException as exc:  # noqa: BLE001  # raised again below, in the thread of the call
            events.put(exc)

    if not context.add_callback(gone.set):
        return  # gone before it began
    thread = threading.Thread(target=run, name="images", daemon=True)
    thread.start()
    while (event := events.get()) is not None:
        if isinstance(event, BaseException):
            raise event
        yield event


def _event(progress: LayerProgress) -> pb.ImageEvent:
    return pb.ImageEvent(
        progress=types_pb2.Progress(
            phase=progress.layer,
            text=progress.text,
            done_bytes=progress.done_bytes,
            total_bytes=progress.total_bytes,
            unix_ns=time.time_ns(),
        )
    )
