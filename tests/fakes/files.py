"""An agent's service Files over a directory of this machine: no namespaces, all of the contract."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from agent import errors
from agent.filetree import pack, paths, place
from agent.services import streams
from agent.services.files import source_to_proto
from protos import agent_pb2, agent_pb2_grpc, types_pb2

if TYPE_CHECKING:
    from tests.fakes.host import FakeHost


class FilesService(agent_pb2_grpc.FilesServicer):
    """Each container has a directory; the path "/wait" waits until the caller has gone, "/cut" ends in the middle."""

    def __init__(self, host: FakeHost, directory: Path) -> None:
        self._host, self._directory = host, directory
        self.commits: list[agent_pb2.CommitRequest] = []
        self.copied: list[agent_pb2.CopyInStart] = []

    def root(self, container_id: str) -> Path:
        self._host.container(container_id)  # NotFound
        path = self._directory / container_id
        path.mkdir(exist_ok=True)
        return path

    def CopyOut(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._host.called("Files.CopyOut")
        root = os.open(self.root(request.id), os.O_PATH | os.O_DIRECTORY)
        try:
            if request.path == b"/wait":
                context.add_callback(self._host.cancelled.set)
                yield agent_pb2.FileChunk(source=agent_pb2.PathStat(name=b"wait", mode=0o100644))
                self._host.cancelled.wait(30)
                return
            located, what = paths.source(root, b"/" if request.path == b"/cut" else request.path, follow=request.follow)
            with located:
                yield agent_pb2.FileChunk(source=source_to_proto(what))
                data = b"".join(pack.tree(located.parent, located.name, what.name))
            if request.path == b"/cut":
                yield agent_pb2.FileChunk(data=data[:700])
                return
            yield agent_pb2.FileChunk(data=data)
            yield agent_pb2.FileChunk(end=len(data))
        except FileNotFoundError as exc:
            raise errors.NotFound(f"no file {exc.filename}") from exc
        finally:
            os.close(root)

    def CopyIn(self, request_iterator: Any, context: Any) -> agent_pb2.CopyInResponse:  # noqa: N802
        start = next(request_iterator).start
        self._host.called("Files.CopyIn")
        self.copied.append(start)
        root = os.open(self.root(start.id), os.O_PATH | os.O_DIRECTORY)
        source = paths.Source(name=start.source.name, mode=start.source.mode) if start.HasField("source") else None
        try:
            with paths.destination(root, start.path, source) as where:
                tar = io.BytesIO(b"".join(streams.whole(request_iterator, "copy", hint="")))
                placed = place.members(cast(Any, tar), where, place.Owner.MINE, root=root)
        except paths.Misfit as exc:
            raise errors.InvalidArgument(str(exc)) from exc
        finally:
            os.close(root)
        return agent_pb2.CopyInResponse(files=placed.files, skipped=["dev/null"], skipped_count=1)

    def Diff(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._host.called("Files.Diff")
        for path in sorted(self.root(request.id).iterdir()):
            change = agent_pb2.PathChange(kind="A", path=b"/" + os.fsencode(path.name))
            yield agent_pb2.DiffChunk(changes=[change])

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._host.called("Files.Export")
        self.root(request.id)
        yield agent_pb2.FileChunk(data=b"all of it")
        yield agent_pb2.FileChunk(end=9)

    def Commit(self, request: Any, context: Any) -> types_pb2.Image:  # noqa: N802
        self._host.called("Files.Commit")
        self.root(request.id)
        self.commits.append(request)
        return types_pb2.Image(name=request.name, digest="sha256:" + "c" * 64)

    def Root(self, request: Any, context: Any) -> agent_pb2.RootResponse:  # noqa: N802
        self._host.called("Files.Root")
        return agent_pb2.RootResponse(path=str(self.root(request.id)))
