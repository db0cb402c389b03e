"""Reads what `docker save`, `podman save`, `skopeo copy` and `migrate save` write: a tar with images in it.

docker-archive: manifest.json names configs and layers. OCI layout: index.json names manifests by digest. Newer tools write
both into one tar; then manifest.json is read, for it alone has whole names. Members come in any order, so the tar is
unpacked into numbered files first; what they are called in the tar never becomes a path.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.errors import InvalidArgument, StorageError, Unsupported
from agent.storage import names, oci, tarstream
from agent.storage.ingest import LayerProgress, LayerSource, Report, Source
from agent.storage.layerstore import CHUNK_BYTES

_LARGEST_DOCUMENT = 32 << 20  # manifests and configs are read into memory
_LINKS = 16  # `docker save` of old writes a layer that images share as a link to the first one
_HEX = re.compile(r"(?:.*/)?([0-9a-f]{64})(?:\.json)?")
_NAME_NOTES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


class Archive:
    """The members of one tar, below `work`, an empty directory that the caller removes."""

    def __init__(self, chunks: Iterator[bytes], work: Path, report: Report) -> None:
        self._files: dict[str, Path] = {}
        self._links: dict[str, str] = {}
        done = 0

        def counted() -> Iterator[bytes]:
            nonlocal done
            for chunk in chunks:
                done += len(chunk)
                report(LayerProgress(layer="archive", text="reading", done_bytes=done))
                yield chunk

        source = counted()
        _, plain = tarstream.decompressed(source)
        members = tarstream.Members(plain)
        try:
            for number, member in enumerate(members):
                name = _clean(member.name)
                if member.isreg():
                    path = work / str(number)
                    with path.open("wb") as file:
                        for _, piece in members.data(member):
                            file.write(piece)
                    self._files[name] = path
                elif member.islnk():
                    self._links[name] = _clean(member.linkname)
                elif member.issym():
                    self._links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
        except OSError as exc:
            raise StorageError(f"cannot unpack the archive in {work}: {exc}", hint="is the disk full?") from exc
        for _ in source:
            pass
        report(LayerProgress(layer="archive", text="done", done_bytes=done, total_bytes=done))

    def images(self, name: str = "") -> list[Source]:
        """What is in it for this host. `name`: of an image that the archive does not name; else it stays untagged."""
        if self._find("manifest.json"):
            found = [self._docker(entry) for entry in self._docker_entries()]
        elif self._find("index.json"):
            found = self._oci()
        else:
            raise InvalidArgument(
                "the archive holds no images: neither manifest.json nor index.json is in it",
                hint="the tar of a root file system becomes an image with: migrate import FILE NAME",
            )
        if not found:
            raise InvalidArgument("the archive names no image at all")
        if name and len(found) == 1 and not found[0].tags:
            one = found[0]
            found = [Source(what=one.what, tags=(names.checked(name),), document=one.document, layers=one.layers)]
        return found

    # ------------------------------------------------------------------ docker-archive

    def _docker_entries(self) -> list[dict[str, Any]]:
        try:
            entries = json.loads(self._document("manifest.json"))
            if not isinstance(entries, list):
                raise TypeError("it is no list")
            for entry in entries:
                if not isinstance(entry["Config"], str) or not all(isinstance(one, str) for one in entry["Layers"]):
                    raise TypeError("Config and Layers must be names")
        except (ValueError, KeyError, TypeError) as exc:
            raise StorageError(f"manifest.json of the archive is damaged: {exc!r}") from exc
        return entries

    def _docker(self, entry: dict[str, Any]) -> Source:
        tags = tuple(names.checked(tag) for tag in entry.get("RepoTags") or ())
        what = tags[0] if tags else entry["Config"]
        config = self._document(entry["Config"])
        if (named := _HEX.fullmatch(entry["Config"])) and hashlib.sha256(config).hexdigest() != named[1]:
            raise _damaged(f"the config of {what}", f"sha256:{named[1]}", config)
        layers = []
        for name in entry["Layers"]:
            # Only below blobs/ a name is a digest: the directories of old archives are named by ids that nothing proves.
            blob = f"sha256:{posixpath.basename(name)}" if name.startswith("blobs/sha256/") else ""
            layers.append(self._layer(name, blob, what))
        return Source(what=what, tags=tags, document=_text(config, what), layers=tuple(layers))

    # ------------------------------------------------------------------ OCI layout

    def _oci(self) -> list[Source]:
        entries = oci.index(self._document("index.json"), "index.json")
        groups: dict[str, list[oci.Descriptor]] = {}
        for entry in entries:
            groups.setdefault(_note(entry), []).append(entry)
        found = []
        for name, group in groups.items():
            what = name or "the image in the archive"
            # Several entries of one name are one image for several platforms; without a name, only if they say so.
            several = len(group) > 1 and (name or all(entry.platform for entry in group))
            for entry in [oci.choose(group, what)] if several else group:
                found.append(self._oci_image(entry, name, what))
        return found

    def _oci_image(self, entry: oci.Descriptor, name: str, what: str) -> Source:
        data = self._blob(entry, what)
        for _ in range(_LINKS):
            if not oci.is_index(data, entry.media_type, what):
                break
            entry = oci.choose(oci.index(data, what), what)
            data = self._blob(entry, what)
        found = oci.manifest_of(data, what)
        layers = tuple(
            self._layer(f"blobs/sha256/{names.hex_of(layer.digest)}", layer.digest, what) for layer in found.layers
        )
        return Source(
            what=what,
            tags=(names.checked(name),) if _is_whole(name) else (),
            document=_text(self._blob(found.config, what), what),
            layers=layers,
        )

    def _blob(self, entry: oci.Descriptor, what: str) -> bytes:
        data = self._document(f"blobs/sha256/{names.hex_of(entry.digest)}")
        if hashlib.sha256(data).hexdigest() != names.hex_of(entry.digest):
            raise _damaged(f"{what}: blob", entry.digest, data)
        return data

    # ------------------------------------------------------------------ members

    def _layer(self, name: str, blob: str, what: str) -> LayerSource:
        path = self._find(name)
        if path is None:
            raise StorageError(
                f"{what}: its layer {name} is not in the archive",
                hint="the archive is cut, or was saved for another platform: save it again with all of its layers",
            )
        return LayerSource(size=path.stat().st_size, blob=blob, chunks=lambda: _chunks(path))

    def _document(self, name: str) -> bytes:
        path = self._find(name)
        if path is None:
            raise StorageError(f"the archive names {name}, which is not in it", hint="it is cut: make it anew")
        if path.stat().st_size > _LARGEST_DOCUMENT:
            raise Unsupported(f"{name} of the archive has {path.stat().st_size} bytes: that is no document of an image")
        return path.read_bytes()

    def _find(self, name: str) -> Path | None:
        for _ in range(_LINKS):
            if name in self._files:
                return self._files[name]
            if name not in self._links:
                return None
            name = self._links[name]
        return None


def _clean(name: str) -> str:
    return posixpath.normpath(name).lstrip("/")


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _note(entry: oci.Descriptor) -> str:
    notes = entry.annotations or {}
    return next((str(notes[key]) for key in _NAME_NOTES if notes.get(key)), "")


def _is_whole(name: str) -> bool:
    """Some tools write only the tag there, which is no name of an image."""
    return ":" in name or "/" in name


def _text(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise StorageError(f"the config of {what} is no text: {exc}") from exc


def _damaged(what: str, wanted: str, data: bytes) -> StorageError:
    return StorageError(
        f"{what} should be {wanted} and is sha256:{hashlib.sha256(data).hexdigest()}",
        hint="the archive is damaged: copy or make it anew",
    )
