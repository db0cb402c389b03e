"""gRPC service Volumes: unpack, call, pack."""

from __future__ import annotations

import contextlib

import grpc

from agent.engine.volumes import Volume, Volumes
from agent.errors import NotFound, WrongState
from agent.services import convert
from agent.storage import layers
from protos import agent_pb2 as pb
from protos import agent_pb2_grpc, types_pb2


class VolumesService(agent_pb2_grpc.VolumesServicer):
    """This host's volumes."""

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes

    def Create(self, request: pb.VolumeRequest, context: grpc.ServicerContext) -> types_pb2.Volume:
        return self._seen(self._volumes.create(request.name, labels=dict(request.labels), shared=request.shared))

    def List(self, request: pb.ListVolumesRequest, context: grpc.ServicerContext) -> pb.VolumeList:
        found = []
        for volume in self._volumes.all():
            with contextlib.suppress(NotFound):  # removed while we looked
                found.append(self._seen(volume))
        return pb.VolumeList(volumes=found)

    def Inspect(self, request: pb.VolumeRequest, context: grpc.ServicerContext) -> types_pb2.Volume:
        return self._seen(self._volumes.get(request.name))

    def Remove(self, request: pb.RemoveVolumeRequest, context: grpc.ServicerContext) -> pb.VolumeList:
        removed = []
        with contextlib.suppress(NotFound):  # remove() says whether that is an error
            removed = [self._seen(self._volumes.get(request.name))]
        self._volumes.remove(request.name, force=request.force)
        return pb.VolumeList(volumes=removed)

    def Prune(self, request: pb.PruneVolumesRequest, context: grpc.ServicerContext) -> pb.PrunedVolumes:
        removed, freed = [], 0
        for volume in self._volumes.unused(named=request.all):
            if not all(_has(volume, label) for label in request.labels):
                continue
            size = 0 if volume.shared else layers.tree_bytes(self._volumes.path(volume))
            try:
                seen = self._seen(volume)
                self._volumes.remove(volume.name)
            except (NotFound, WrongState):
                continue  # gone or taken since we looked
            removed.append(seen)
            freed += size
        return pb.PrunedVolumes(volumes=removed, freed_bytes=freed)

    def _seen(self, volume: Volume) -> types_pb2.Volume:
        message = convert.volume_to_proto(volume)
        message.path = str(self._volumes.path(volume))
        message.used_by.extend(sorted(spec.name for spec in self._volumes.used_by(volume.name)))
        return message


def _has(volume: Volume, label: str) -> bool:
    key, equals, value = label.partition("=")
    return key in volume.labels and (not equals or volume.labels[key] == value)
