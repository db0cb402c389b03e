"""Images on this host: content-addressed, shared by the agent and by the transfer processes.

    blobs/sha256/HEX    layer archives as they came, manifests and configs (OCI media types)
    layers/HEX/         an unpacked layer, named by its diff id (sha256 of the plain tar); never changed
    layers/HEX.json     of that layer: which blob holds it, sizes
    images.json         name -> digest of the manifest; "NAME@DIGEST" is an image whose tag another one took
    origins.json        digest of the manifest -> "REPOSITORY@DIGEST" in registries
    tmp/ holds/         one directory for each unpacking under way, and for each holder of layers; locked by who works
    .lock               held (flock) while names or layers appear or go

A manifest names plain tars, whatever compression the blobs have: so the digest of an image depends on nothing but its
config document and its layers, and every host that has them can write the same manifest.
"""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from agent import atomic
from agent.errors import InvalidArgument, NotFound, StorageError, Unsupported, WrongState
from agent.storage import manifest, names
from agent.storage.layerstore import Hold, Layer, LayerStore
from agent.storage.manifest import Document, Healthcheck, History, ImageConfig
from agent.storage.receive import LayerWriter

LARGEST_DOCUMENT = 2 << 20

__all__ = ["Healthcheck", "History", "Image", "ImageConfig", "ImageStore", "LayerWriter"]


@dataclass(frozen=True, kw_only=True)
class Image:
    """`digest`: of the manifest. `layers`: diff ids, base first, each once. Sizes: unpacked; `stored_bytes`: of the archives.

    `name`: a tag; "NAME@DIGEST" where another image took it, "@DIGEST" where it never had one. `document`: the config as
    it came. `repo_digests`: "REPOSITORY@DIGEST" of the registries that it came from or went to.
    """

    name: str
    digest: str
    layers: tuple[str, ...]
    size_bytes: int
    created_unix_ns: int
    config: ImageConfig = field(default_factory=ImageConfig)
    document: str = ""
    repo_digests: tuple[str, ...] = ()
    layer_bytes: tuple[int, ...] = ()
    stored_bytes: int = 0

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Image:
        """Of what dataclasses.asdict made, also after a trip through JSON."""
        config: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in raw["config"].items()
        }
        if check := config.get("healthcheck"):
            config["healthcheck"] = Healthcheck(**{**check, "test": tuple(check["test"])})
        plain = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
        return cls(**{**plain, "config": ImageConfig(**config)})  # type: ignore[arg-type]  # written by us


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """What became of a name. `deleted`: digests of images that nothing names any more; `layers`: their own layers."""

    untagged: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Collected:
    """`freed_bytes`: of layers, unpacked and archived, and of blobs."""

    layers: tuple[str, ...]
    freed_bytes: int


def _nobody(_digest: str) -> Sequence[str]:
    return ()


class ImageStore:
    """The images under `root`, which is made if it is not there. Safe for many processes and threads at once."""

    def __init__(self, root: Path) -> None:
        self._store = LayerStore(root)
        self._names = root / "images.json"
        self._origins = root / "origins.json"

    # ------------------------------------------------------------------ make

    def import_tar(self, name: str, config: ImageConfig, chunks: Iterable[bytes], *, created_by: str = "") -> Image:
        """Make an image of one layer out of a tar of a root file system, plain, gzip or zstd, and give it `name`.

        `created_by`: the one line of its history.         The same tar and config give the same digest on every host, for the image
        counts as created when its newest file was. A name that is taken moves to the new image. On an error nothing is left.
        """
        name = names.checked(name)
        with self._store.ingested(iter(chunks)) as publish, self._store.locked():
            layer = publish()
            step = History(created_unix_ns=layer.newest_unix_ns, created_by=created_by)
            document = Document(
                config=config,
                layers=(layer.diff_id,),
                created_unix_ns=layer.newest_unix_ns,
                history=(step,) if created_by else (),
            )
            return self._write_image([name], manifest.write(document), (layer,))

    def add_layer(self, chunks: Iterable[bytes], hold: Hold, *, diff_id: str = "", blob: str = "") -> Layer:
        """Unpack an archive into a layer that no image names yet; `hold` keeps it. `diff_id`, `blob`: what it must be.

        Raises StorageError, leaving nothing, for anything else.
        """
        with self._store.ingested(iter(chunks), diff_id=diff_id, blob=blob) as publish, self._store.locked():
            layer = publish()
            hold.add(layer.diff_id)
            return layer

    def add_image(self, tags: Collection[str], document: str, *, origin: str = "") -> Image:
        """Record an image whose layers are here under `tags`, which move to it; without any it is an untagged image.

        `document`: the config, kept byte for byte (`manifest.write` makes one). `origin`: "REPOSITORY@DIGEST" of a
        registry. Raises NotFound for a missing layer, InvalidArgument for a document that is none.
        """
        tags = [names.checked(tag) for tag in tags]
        if len(document) > LARGEST_DOCUMENT:
            raise Unsupported(f"a config of {len(document)} characters is no image's: it travels with every container")
        try:
            layers = manifest.read(document).layers
        except ValueError as exc:
            raise InvalidArgument(str(exc)) from exc
        with self._store.locked():
            self._need(layers, tags[0] if tags else "the image")
            image = self._write_image(tags, document, self._known(layers), origin.partition("@")[0])
            if origin:
                self._add_origins(image.digest, (origin,))
            return self._read_image(image.name, image.digest)

    def register(self, image: Image) -> None:
        """Record an image of another host, all of whose layers are here. Idempotent.

        If the name belongs to another image here, that stays so, and this one is called NAME@DIGEST.
        """
        base, at, _ = image.name.partition("@")
        name = names.checked(base) if base else ""
        with self._store.locked():
            self._need(image.layers, image.name)
            known = self._read_names()
            if at or known.get(name, image.digest) != image.digest:
                name = names.untagged(name, image.digest)
            document = image.document or manifest.write(
                Document(config=image.config, layers=image.layers, created_unix_ns=image.created_unix_ns)
            )
            layers = self._known(_read(document, image.name).layers)
            found = manifest.digest_of(_manifest(document, layers))
            if found != image.digest:
                raise StorageError(
                    f"image {name}: {image.digest} was announced, config and layers give {found}",
                    hint="both hosts need the same version of migrate",
                )
            self._write_image([name], document, layers)
            self._add_origins(image.digest, image.repo_digests)

    def tag(self, name_or_digest: str, tag: str) -> Image:
        """Give the image another name, which moves to it if it is taken. Raises NotFound, InvalidArgument."""
        tag = names.checked(tag)
        with self._store.locked():
            _, digest = self._resolve(name_or_digest)
            self._point([tag], digest)
            return self._read_image(tag, digest)

    # ------------------------------------------------------------------ look

    def get(self, name_or_digest: str) -> Image:
        """The image of that name (":latest" is understood), digest (12 hex digits do) or REPOSITORY@DIGEST. NotFound."""
        name, digest = self._resolve(name_or_digest)
        return self._read_image(name, digest)

    def list(self) -> builtins.list[Image]:
        """Every name, sorted."""
        found = []
        for name, digest in sorted(self._read_names().items()):
            try:
                found.append(self._read_image(name, digest))
            except StorageError:
                if self._read_names().get(name) == digest:
                    raise
                continue  # removed while we looked
        return found

    def missing(self, layers: Iterable[str]) -> builtins.list[str]:
        """Those of the diff ids that are not here, in the same order."""
        return self._store.missing(list(layers))

    def layer_path(self, diff_id: str) -> Path:
        """Where the layer is unpacked. Raises NotFound."""
        return self._store.layer_path(diff_id)

    def layer(self, diff_id: str) -> Layer:
        """Sizes of the layer, and which blob it came as. Raises NotFound."""
        return self._store.layer(diff_id)

    def open_layer(self, diff_id: str) -> tuple[BinaryIO, int]:
        """The stored archive of the layer, from its beginning, and its size in bytes. The caller closes it."""
        return self._store.open_layer(diff_id)

    def blob_path(self, digest: str) -> Path:
        """Where a blob lies, if it is here."""
        return self._store.blobs / names.hex_of(digest)

    def receive_layer(self, diff_id: str) -> LayerWriter:
        """A context manager that takes the archive of the layer in pieces and unpacks it meanwhile; see LayerWriter."""
        names.hex_of(diff_id)
        return LayerWriter(lambda chunks: self._receive(diff_id, chunks))

    def hold(self, *diff_ids: str) -> AbstractContextManager[Hold]:
        """Keep layers from `gc` until an image or a container names them, or this process dies; see LayerStore.hold."""
        return self._store.hold(*diff_ids)

    def workspace(self) -> AbstractContextManager[Path]:
        """A directory on the images' file system that goes at the end, or after the death of this process."""
        return self._store.workspace()

    # ------------------------------------------------------------------ remove

    def remove(self, name: str, force: bool) -> builtins.list[str]:
        """Forget a name. Returns the diff ids that no image names any more; `gc` takes their bytes away."""
        return list(self.forget(name, force=force).layers)

    def forget(self, name: str, *, force: bool, users: Callable[[str], Sequence[str]] = _nobody) -> Forgotten:
        """Forget a name; by digest every name of the image, with `force` only if there are several.

        `users`: names of the containers made from the image of that digest. The last name of an image that is used goes
        only with `force`, and the image stays as an untagged one, because its containers need it to move. Raises
        NotFound, WrongState.
        """
        with self._store.locked():
            found, digest = self._resolve(name)
            known = self._read_names()
            all_names = sorted(one for one, other in known.items() if other == digest)
            gone = all_names if names.digest_prefix(name) else [found]
            if len(gone) > 1 and not force:
                raise WrongState(f"{name} is called {', '.join(gone)}", hint="remove it by name, or use force")
            left = {one: other for one, other in known.items() if one not in gone}
            tags = tuple(one for one in gone if names.is_tag(one))
            if len(gone) < len(all_names):
                self._write_names(left)
                return Forgotten(untagged=tags)
            if used := sorted(users(digest)):
                if not force or not tags:
                    hint = "remove the containers first" + (", or use --force: they run on" if tags else "")
                    raise WrongState(f"image {name} is used by {', '.join(used)}", hint=hint)
                self._write_names(left | {names.untagged(tags[0], digest): digest})
                return Forgotten(untagged=tags)
            try:
                layers = self._read_image(found, digest).layers
            except StorageError:
                layers = ()  # damaged: removing it is how people get out of that
            self._write_names(left)
            named = self._named_layers()
            return Forgotten(
                untagged=tags, deleted=(digest,), layers=tuple(sorted(one for one in layers if one not in named))
            )

    def gc(self, in_use: Collection[str] | Callable[[], Collection[str]]) -> builtins.list[str]:
        """Delete the layers that neither an image nor a hold nor `in_use` names; returns them. See `collect`."""
        return list(self.collect(in_use).layers)

    def collect(self, in_use: Collection[str] | Callable[[], Collection[str]]) -> Collected:
        """Delete layers and blobs that nothing names: no image, no holder, and not `in_use`.

        `in_use`: diff ids of all containers, those on their way here too, whose layers arrive before their image does. As
        a function it is asked twice: what begins to use a layer while we look at it gets it back.
        """

        def keep() -> set[str]:
            return self._named_layers() | self._store.held() | set(in_use() if callable(in_use) else in_use)

        with self._store.workspace() as work, self._store.locked():
            taken = self._store.take_layers(work, keep())
            for diff_id in set(taken) & keep():
                self._store.put_back(work, diff_id)
                del taken[diff_id]
            digests = set(self._read_names().values())
            blobs = digests | {json.loads(self._store.read_blob(one))["config"]["digest"] for one in digests}
            freed = self._store.remove_blobs(blobs)
            origins = self._read_origins()
            if set(origins) - digests:
                self._write_origins({one: where for one, where in origins.items() if one in digests})
            return Collected(layers=tuple(sorted(taken)), freed_bytes=freed + sum(taken.values()))

    # ------------------------------------------------------------------ inside

    def _receive(self, diff_id: str, chunks: Iterator[bytes]) -> None:
        with self._store.ingested(chunks, diff_id=diff_id) as publish, self._store.locked():
            publish()

    def _need(self, layers: Collection[str], name: str) -> None:
        if lacking := self._store.missing(layers):
            raise NotFound(f"image {name}: layers {', '.join(lacking)} are not here", hint="send them first")

    def _known(self, diff_ids: Iterable[str]) -> tuple[Layer, ...]:
        return tuple(self._store.layer(one) for one in diff_ids)

    def _write_image(
        self, tags: Sequence[str], document: str, layers: tuple[Layer, ...], repository: str = ""
    ) -> Image:
        """Without tags it is an untagged image of `repository`."""
        self._store.write_blob(document.encode())
        digest = self._store.write_blob(_manifest(document, layers))
        tags = tags or [names.untagged(repository, digest)]
        self._point(tags, digest)
        return self._read_image(tags[0], digest)

    def _point(self, wanted: Sequence[str], digest: str) -> None:
        """The names are this image's now. An image that loses its last name so stays as an untagged one."""
        known = self._read_names()
        losers = {one: known[one] for one in wanted if known.get(one, digest) != digest}
        known |= dict.fromkeys(wanted, digest)
        mine = [one for one, other in known.items() if other == digest]
        if any(names.is_tag(one) for one in mine):  # it has a tag: no need for the other kind
            known = {one: other for one, other in known.items() if other != digest or names.is_tag(one)}
        for name, loser in losers.items():
            if loser not in known.values():
                known[names.untagged(name, loser)] = loser
        self._write_names(known)

    def _read_image(self, name: str, digest: str) -> Image:
        try:
            outer = json.loads(self._store.read_blob(digest))
            text = self._store.read_blob(outer["config"]["digest"]).decode()
            document = manifest.read(text)
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise StorageError(
                f"image {name} ({digest}) is damaged: {exc}", hint="remove it and import it again"
            ) from exc
        # A layer that comes twice hides its lower self completely, and overlayfs takes each directory once.
        diff_ids = tuple(reversed(dict.fromkeys(reversed(document.layers))))
        layers = self._known(diff_ids)
        return Image(
            name=name,
            digest=digest,
            layers=diff_ids,
            size_bytes=sum(one.unpacked_bytes for one in layers),
            created_unix_ns=document.created_unix_ns,
            config=document.config,
            document=text,
            repo_digests=tuple(self._read_origins().get(digest, ())),
            layer_bytes=tuple(one.unpacked_bytes for one in layers),
            stored_bytes=sum(one.blob_bytes for one in layers),
        )

    def _resolve(self, wanted: str) -> tuple[str, str]:
        """Name and digest of an image. Of several names of one digest, the first."""
        known = self._read_names()
        short = names.familiar(wanted)
        if prefix := names.digest_prefix(wanted):
            found = sorted(name for name in known if known[name].startswith(prefix))
            if len({known[name] for name in found}) > 1:
                raise InvalidArgument(f"{wanted!r} begins the digests of {', '.join(found)}", hint="write more of it")
        elif "@" in short and short not in known:
            origins = self._read_origins()
            found = sorted(name for name in known if short in origins.get(known[name], ()))
        else:
            found = [name for name in (short, f"{short}:{names.LATEST}") if name in known]
        if not found:
            raise NotFound(f"no image {wanted!r} on this host", hint="`migrate image ls` shows what is here")
        return found[0], known[found[0]]

    def _named_layers(self) -> set[str]:
        return {diff_id for image in self.list() for diff_id in image.layers}

    def _read_names(self) -> dict[str, str]:
        return _read_json(self._names)

    def _write_names(self, known: Mapping[str, str]) -> None:
        atomic.write(self._names, json.dumps(known, sort_keys=True, indent=1), mode=0o644)

    def _read_origins(self) -> dict[str, builtins.list[str]]:
        return _read_json(self._origins)

    def _write_origins(self, origins: Mapping[str, Sequence[str]]) -> None:
        atomic.write(self._origins, json.dumps(origins, sort_keys=True, indent=1), mode=0o644)

    def _add_origins(self, digest: str, more: Iterable[str]) -> None:
        origins = self._read_origins()
        merged = sorted({*origins.get(digest, ()), *more})
        if merged != origins.get(digest, []):
            self._write_origins(origins | {digest: merged})

    def add_origin(self, digest: str, origin: str) -> None:
        """Remember that the image is "REPOSITORY@DIGEST" in a registry."""
        with self._store.locked():
            self._add_origins(digest, (origin,))


def _read(document: str, name: str) -> Document:
    try:
        return manifest.read(document)
    except ValueError as exc:
        raise StorageError(f"image {name}: {exc}") from exc


def _manifest(document: str, layers: Sequence[Layer]) -> bytes:
    return manifest.manifest(document, [(layer.diff_id, layer.tar_bytes) for layer in layers])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise StorageError(f"{path} is not readable: {exc}") from exc
    if not isinstance(found, dict):
        raise StorageError(f"{path} does not hold names")
    return found
