"""Page maps: what is read of CRIU's files."""

from __future__ import annotations

import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from agent.criu import images
from agent.criu.images import PAGE, Run

pytestmark = pytest.mark.unit

U64, U32 = descriptor_pb2.FieldDescriptorProto.TYPE_UINT64, descriptor_pb2.FieldDescriptorProto.TYPE_UINT32


def messages(name: str, entry: list[tuple[str, int, Any]]) -> Any:
    """Classes like those of pycriu.images.pagemap_pb2, with the fields that a version of CRIU has."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package=name, syntax="proto2")
    for message, fields in (("pagemap_head", [("pages_id", 1, U32)]), ("pagemap_entry", entry)):
        made = file.message_type.add(name=message)
        for field, number, kind in fields:
            made.field.add(
                name=field, number=number, type=kind, label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    classes = {
        each: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{name}.{each}"))
        for each in ("pagemap_head", "pagemap_entry")
    }
    return SimpleNamespace(pagemap_pb2=SimpleNamespace(**classes))


NEW = messages("criu42", [("vaddr", 1, U64), ("compat_nr_pages", 2, U32), ("flags", 4, U32), ("nr_pages", 5, U64)])
OLD = messages("criu41", [("vaddr", 1, U64), ("nr_pages", 2, U32), ("flags", 4, U32)])


def write(directory: Path, pycriu: Any, entries: list[dict[str, int]]) -> None:
    pb = pycriu.pagemap_pb2
    records = [pb.pagemap_head(pages_id=7), *(pb.pagemap_entry(**entry) for entry in entries)]
    body = b"".join(struct.pack("<I", record.ByteSize()) + record.SerializeToString() for record in records)
    (directory / "pagemap-12.img").write_bytes(struct.pack("<II", 0x54564319, 0x56084025) + body)


def test_lazy_pages_without_contents_are_those_left_behind(tmp_path: Path) -> None:
    """LAZY without PRESENT is in no image; an entry without flags is PRESENT, as in CRIU's old images."""
    lazy, both = images.LAZY, images.LAZY | images.PRESENT
    entries = [
        {"vaddr": 0x1000, "compat_nr_pages": 2, "flags": lazy},
        {"vaddr": 0x9000, "compat_nr_pages": 1, "flags": both},
        {"vaddr": 0xB000, "compat_nr_pages": 3},
    ]
    write(tmp_path, NEW, entries)
    (page_map,) = images.page_maps(NEW, tmp_path)
    assert (page_map.task, page_map.pages_id) == (12, 7)
    assert page_map.runs == (Run(0x1000, 2, lazy), Run(0x9000, 1, both), Run(0xB000, 3, images.PRESENT))
    assert page_map.left_behind() == [Run(0x1000, 2, lazy)]


def test_counts_of_both_versions_of_criu_are_read(tmp_path: Path) -> None:
    """4.1 has one field for the count; 4.2 a wider one, and the old one renamed."""
    write(tmp_path, OLD, [{"vaddr": PAGE, "nr_pages": 5, "flags": images.LAZY}])
    assert next(images.page_maps(OLD, tmp_path)).runs[0].pages == 5
    write(tmp_path, NEW, [{"vaddr": PAGE, "nr_pages": 1 << 33, "flags": images.LAZY}])
    assert next(images.page_maps(NEW, tmp_path)).runs[0].pages == 1 << 33
