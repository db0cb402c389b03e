"""gRPC service Builds: unpack, run the build, pack its events."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from agent.build.builds import Builder
from agent.build.events import Event, Request, Said, StepBegins, StepEnds, Warned
from agent.engine.spec import IdRange, Network
from agent.errors import InvalidArgument
from agent.services import convert, streams
from protos import agent_pb2 as pb
from protos import agent_pb2_grpc


class BuildsService(agent_pb2_grpc.BuildsServicer):
    """This host's builds."""

    def __init__(self, builder: Builder, host: str) -> None:
        self._builder, self._host = builder, host

    def Build(
        self, request_iterator: Iterator[pb.BuildChunk], context: grpc.ServicerContext
    ) -> Iterator[pb.BuildEvent]:
        first = next(request_iterator, None)
        if first is None or not first.HasField("start"):
            raise InvalidArgument("a build begins with its Dockerfile")
        build = self._builder.build(_request(first.start), access=convert.access_from_proto(first.start.access))
        if not context.add_callback(build.cancel):
            build.cancel()
        for event in build.run(streams.whole(request_iterator, "context", hint="build again")):
            yield _pack(event)
        assert build.image is not None
        yield pb.BuildEvent(done=convert.image_to_proto(build.image, self._host))


def _request(start: pb.BuildStart) -> Request:
    convert.check_ids(start.ids, f"the build of {', '.join(start.tags) or start.file}")
    if start.network not in ("", "default", "bridge", "host", "none"):
        raise InvalidArgument(f"--network {start.network!r}: no such network", hint="default, host or none")
    address = start.address
    return Request(
        dockerfile=start.dockerfile,
        file=start.file or "Dockerfile",
        tags=tuple(start.tags),
        build_args=dict(start.build_args),
        target=start.target,
        no_cache=start.no_cache,
        pull=start.pull,
        network=start.network if start.network in ("host", "none") else "",
        secrets=dict(start.secrets),
        labels=dict(start.labels),
        ids=IdRange(base=start.ids.base, count=start.ids.count),
        address=Network(address=address.address, mac=address.mac, gateway=address.gateway, mtu=address.mtu),
    )


def _pack(event: Event) -> pb.BuildEvent:
    match event:
        case StepBegins():
            step = pb.BuildStep(number=event.number, total=event.total, text=event.text, stage=event.stage)
            return pb.BuildEvent(step=step)
        case StepEnds():
            done = pb.BuildStepDone(
                number=event.number, cached=event.cached, layer=event.layer, duration_s=event.duration_s
            )
            return pb.BuildEvent(step_done=done)
        case Said(stream="stderr"):
            return pb.BuildEvent(stderr=event.data)
        case Said():
            return pb.BuildEvent(stdout=event.data)
        case Warned():
            return pb.BuildEvent(warning=event.text)
