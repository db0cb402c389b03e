"""One build: stage by stage, step by step, each step either found in the cache or done.

    plan ─► stage: base ─► evaluate(instruction) ─► key ─┬─ kept: its layer
                                                         └─ done: Copy (overlay) or Execute (container) ─► upper ─► layer
    last stage ─► config, history ─► image

Whatever happens, the work directory, the containers and the mounts go; layers that are done stay for the next build.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2b_dockerfile_utils import PatternMatcher

from agent.build import copying, fetching, instructions, key, mounting, overlay, plan, runner, sources, variables
from agent.build.cache import Cache, Kept
from agent.build.dockerfile import DockerfileError, Instruction, parse, parse_trigger
from agent.build.events import Event, Request, StepBegins, StepEnds, Tail, Warned, failed
from agent.build.instructions import Copy, Execute, MakeDirectory, Nothing, Scope, State
from agent.build.mountflag import Mount
from agent.build.plan import Plan, Stage
from agent.build.runner import Runner
from agent.errors import AgentError, NotFound, StorageError
from agent.storage import layertar, manifest, unpack
from agent.storage.images import History, Image, ImageStore


@dataclass(frozen=True, kw_only=True)
class Built:
    """A stage, finished or on its way. `created_unix_ns`: of its newest step."""

    state: State
    layers: tuple[str, ...] = ()
    history: tuple[History, ...] = ()
    created_unix_ns: int = 0


class Build:
    """Iterate over `run(context)` for events; then `image` is there. `cancel()` from any thread ends it.

    `mount_point`: where overlays are mounted for a moment; a directory of this build alone, as is the one of that name with
    ".private", which holds secrets while they are used.
    """

    def __init__(
        self,
        request: Request,
        images: ImageStore,
        cache: Cache,
        commands: Runner,
        mount_point: Path,
        *,
        caches: mounting.CacheDirectories,
        pull: Callable[[str], Image],
    ) -> None:
        """`pull` brings an image from its registry. Raises DockerfileError and InvalidArgument for what is wrong with the
        Dockerfile: before any work.
        """
        dockerfile = parse(request.dockerfile, request.file)
        self._plan: Plan = plan.plan(dockerfile, build_args=request.build_args, target=request.target)
        self._scope = Scope(escape=dockerfile.escape, build_args=request.build_args, outer=dict(self._plan.arguments))
        self._request, self._images, self._cache, self._pull = request, images, cache, pull
        self._commands, self._mount_point, self._caches = commands, mount_point, caches
        self._platform = variables.host_platform()
        self._built: dict[int, Built] = {}
        self._number = 0
        self.image: Image | None = None

    def cancel(self) -> None:
        """Idempotent."""
        self._commands.cancel()

    def run(self, context: Iterator[bytes]) -> Iterator[Event]:
        """`context`: a plain tar. Raises AgentError; then nothing is named, and finished layers stay in the cache."""
        with self._images.workspace() as work, self._images.hold() as hold, ExitStack() as stack:
            root = work / "context"
            root.mkdir(mode=0o755)
            unpack.layer(context, root, whiteouts=False)
            self._context = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, self._context)
            self._work, self._hold = work, hold
            for text in self._plan.warnings:
                yield Warned(text=text)
            for index in self._plan.needed:
                yield from self._stage(self._plan.stages[index])
            self.image = self._finish(self._built[self._plan.target.index])
        self._cache.forget()

    # ------------------------------------------------------------ stages

    def _stage(self, stage: Stage) -> Iterator[Event]:
        self._number += 1
        began = time.monotonic()
        first = self._number
        yield self._begins(first, _from(stage), stage)
        with _at(stage.source):
            built = self._base(stage)
        self._hold.add(*built.layers)
        yield StepEnds(number=first, cached=False, layer="", duration_s=time.monotonic() - began)
        triggers = built.state.config.on_build
        if triggers:
            config = dataclasses.replace(built.state.config, on_build=())
            built = dataclasses.replace(built, state=dataclasses.replace(built.state, config=config))
        for text in triggers:
            one = parse_trigger(text, self._scope.escape, stage.source.place)
            built = yield from self._step(stage, one, built, first, f"ONBUILD {one.text}")
        for one in stage.instructions:
            self._number += 1
            built = yield from self._step(stage, one, built, self._number, one.text)
        self._built[stage.index] = built

    def _base(self, stage: Stage) -> Built:
        if stage.base_stage is not None:
            below = self._built[stage.base_stage]
            return dataclasses.replace(below, state=dataclasses.replace(below.state, cmd_here=False))
        if stage.base == plan.SCRATCH:
            return Built(state=State())
        image = self._image(stage.base)
        document = manifest.read(image.document)
        history = document.history
        if sum(1 for step in history if not step.empty) != len(document.layers):
            step = History(created_unix_ns=image.created_unix_ns, created_by=f"FROM {stage.base}")
            history = (step,) * len(document.layers)  # an imported one says nothing of how it was made
        return Built(
            state=State(config=image.config, author=document.author),
            layers=document.layers,
            history=history,
            created_unix_ns=image.created_unix_ns,
        )

    def _image(self, name: str) -> Image:
        if self._request.pull:
            return self._pull(name)
        try:
            return self._images.get(name)
        except NotFound as absent:
            try:
                return self._pull(name)
            except AgentError as exc:
                raise type(exc)(
                    f"no image {name!r} on this host, and it cannot be pulled: {exc.message}",
                    hint=absent.hint,
                    detail=exc.detail,
                    code=exc.code,
                ) from exc

    def _begins(self, number: int, text: str, stage: Stage) -> StepBegins:
        label = (stage.name or f"stage-{stage.index}") if len(self._plan.needed) > 1 else ""
        return StepBegins(number=number, total=self._plan.steps, text=text, stage=label)

    # ------------------------------------------------------------ steps

    def _step(
        self, stage: Stage, one: Instruction, built: Built, number: int, text: str
    ) -> Generator[Event, None, Built]:
        """Returns the stage after it."""
        self._commands.check()
        began = time.monotonic()
        yield self._begins(number, text, stage)
        with _at(one):
            state, action = instructions.evaluate(built.state, one, self._scope)
            cached, kept = False, Kept(layer="", created_unix_ns=built.created_unix_ns)
            if not isinstance(action, Nothing):
                cached, kept = yield from self._do(stage, one, action, built)
        step = History(created_unix_ns=kept.created_unix_ns, created_by=text, empty=not kept.layer)
        yield StepEnds(number=number, cached=cached, layer=kept.layer, duration_s=time.monotonic() - began)
        return Built(
            state=state,
            layers=(*built.layers, kept.layer) if kept.layer else built.layers,
            history=(*built.history, dataclasses.replace(step, author=state.author)),
            created_unix_ns=max(built.created_unix_ns, kept.created_unix_ns),
        )

    def _do(
        self, stage: Stage, one: Instruction, action: MakeDirectory | Copy | Execute, built: Built
    ) -> Generator[Event, None, tuple[bool, Kept]]:
        """Returns whether it was kept, and the layer."""
        with ExitStack() as stack:
            taken: list[tuple[int, str, bool]] = []
            digests: Mapping[str, str] = {}
            if isinstance(action, Copy):
                taken, digests = self._sources(stack, stage, action)
            elif isinstance(action, Execute):
                digests = mounting.digests(action.mounts, lambda mount: self._mount_source(stack, stage, mount))
            name = key.of(built.layers, action, digests, platform=self._platform)
            kept = None if self._request.no_cache else self._cache.get(name)
            if kept is not None and (not kept.layer or not self._images.missing([kept.layer])):
                self._hold.add(*([kept.layer] if kept.layer else []))
                if not kept.layer or not self._images.missing([kept.layer]):  # it may have gone before we held it
                    return True, kept
            if isinstance(action, Execute):
                layer = yield from self._execute(stage, one, action, built)
            else:
                layer = self._write(action, taken, built)
            kept = Kept(layer=layer, created_unix_ns=time.time_ns())
            self._cache.put(name, kept)
            return False, kept

    def _write(self, action: MakeDirectory | Copy, taken: Sequence[tuple[int, str, bool]], built: Built) -> str:
        """COPY, ADD and WORKDIR: written into an overlay of the layers so far."""
        lower = self._paths(built.layers)
        with self._images.workspace() as work:
            upper = work / "upper"
            with overlay.merged(lower, work, self._mount_point, upper=upper) as root:
                if isinstance(action, MakeDirectory):
                    copying.Writer(root, copying.Look()).make_directory(action.path)
                else:
                    look = copying.Look(owner=copying.owner(action.owner, root), mode=copying.mode(action.mode))
                    writer = copying.Writer(root, look, PatternMatcher(list(action.exclude)))
                    for tree, path, unpacked in taken:
                        where = action.destination
                        if action.parents:
                            above = path if sources.is_directory(tree, path) else path.rpartition("/")[0]
                            where = f"{where}/{above}"
                        into = action.into or action.parents or len(taken) > 1
                        self._take(writer, tree, path, where, into=into, unpacked=unpacked, work=work)
                    for name, content in action.documents:
                        writer.write(name, content.encode(), action.destination, into=action.into)
            return self._keep(upper, lower)

    def _take(
        self, writer: copying.Writer, tree: int, path: str, where: str, *, into: bool, unpacked: bool, work: Path
    ) -> None:
        if unpacked and fetching.is_archive(tree, path):
            place = work / "unpacked"
            place.mkdir(mode=0o755)
            fetching.unpack_archive(tree, path, place)
            fd = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                writer.take(fd, place.name, where, into=True)
            finally:
                os.close(fd)
                fetching.remove_tree(place)
            return
        writer.take(tree, path, where, into=into)

    def _execute(self, stage: Stage, one: Instruction, action: Execute, built: Built) -> Generator[Event, None, str]:
        network = action.network or self._request.network
        tail = Tail()
        private = self._mount_point.with_name(f"{self._mount_point.name}.private")
        with ExitStack() as stack:
            stack.callback(mounting.remove_all, private)
            private.mkdir(mode=0o700, parents=True)
            ready = mounting.prepare(
                action,
                stack=stack,
                tree=lambda mount: self._mount_source(stack, stage, mount),
                caches=self._caches,
                secrets=self._request.secrets,
                work=stack.enter_context(self._images.workspace()),
                private=private,
                ids=self._commands.ids,
                check=self._commands.check,
            )
            running = stack.enter_context(self._commands.run(action, _once(built.layers), network=network, ready=ready))
            for said in running:
                tail.add(said.data)
                yield said
            self._commands.check()
            if running.exit_code:
                raise failed(one.place, one.text, running.exit_code, tail)
            lower = self._paths(built.layers)
            made = [name for name in runner.MOUNT_POINTS if not any((layer / name).is_dir() for layer in lower)]
            made += mounting.untouched(running.upper, mounting.stubs(action, lower))
            return self._keep(running.upper, lower, (*runner.HOST_FILES, *made))

    def _keep(self, upper: Path, lower: Sequence[Path], ignore: Collection[str] = ()) -> str:
        """The diff id of the layer, "" when nothing changed."""
        if layertar.is_empty(upper, lower, ignore):
            return ""
        return self._images.add_layer(layertar.write(upper, lower, ignore), self._hold).diff_id

    # ------------------------------------------------------------ files

    def _sources(
        self, stack: ExitStack, stage: Stage, action: Copy
    ) -> tuple[list[tuple[int, str, bool]], Mapping[str, str]]:
        """What COPY takes, as (open tree, path in it, whether an archive is unpacked), and its digests."""
        tree = self._tree(stack, stage, action.from_) if action.from_ else self._context
        exclude = PatternMatcher(list(action.exclude))
        taken: list[tuple[int, str, bool]] = []
        digests: dict[str, str] = {}
        for pattern in action.sources:
            if fetching.is_url(pattern):
                directory = fetching.fetch(pattern, self._work, action.checksum)
                fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, fd)
                found = [(fd, name, action.unpack_fetched) for name in os.listdir(fd)]  # noqa: PTH208  # of a descriptor
            else:
                found = [(tree, path, action.unpack) for path in sources.find(tree, pattern)]
            for root, path, _ in found:
                digests[f"{len(digests)}:{path.rpartition('/')[2]}"] = sources.digest(root, [path], exclude)
            taken += found
        return taken, digests

    def _mount_source(self, stack: ExitStack, stage: Stage, mount: Mount) -> int:
        return self._tree(stack, stage, mount.from_) if mount.from_ else self._context

    def _tree(self, stack: ExitStack, stage: Stage, name: str) -> int:
        """A stage before this one, or an image."""
        index = plan.resolve(self._plan.stages[: stage.index], name)
        if index is None:
            image = self._image(name)
            self._hold.add(*image.layers)
            layers = image.layers
        else:
            layers = self._built[index].layers
        work = stack.enter_context(self._images.workspace())
        return stack.enter_context(overlay.merged(self._paths(layers), work, self._mount_point))

    def _paths(self, layers: Sequence[str]) -> list[Path]:
        # One that comes twice hides its lower self completely, and overlayfs takes each directory once.
        return [self._images.layer_path(one) for one in _once(layers)]

    def _finish(self, built: Built) -> Image:
        config = dataclasses.replace(built.state.config, labels={**built.state.config.labels, **self._request.labels})
        document = manifest.Document(
            config=config,
            layers=built.layers,
            created_unix_ns=built.created_unix_ns,
            history=built.history,
            author=built.state.author,
        )
        return self._images.add_image(self._request.tags, manifest.write(document))


def _once(layers: Sequence[str]) -> tuple[str, ...]:
    return tuple(reversed(dict.fromkeys(reversed(layers))))


def _from(stage: Stage) -> str:
    """The FROM line with what its variables stand for."""
    if "$" not in stage.source.text:
        return stage.source.text
    return f"FROM {stage.base}" + (f" AS {stage.source.args[2]}" if stage.name else "")


@contextmanager
def _at(one: Instruction) -> Iterator[None]:
    """Errors from inside say which line they come from."""
    try:
        yield
    except (DockerfileError, GeneratorExit):
        raise
    except AgentError as exc:
        if not exc.message.startswith(str(one.place)) and exc.code != "build.cancelled":
            exc.message = f"{one.place}: {exc.message}"
            exc.args = (exc.message,)
            exc.detail = "\n".join(part for part in (one.place.shown, exc.detail) if part)
        raise
    except OSError as exc:
        raise StorageError(f"{one.place}: {exc}", detail=one.place.shown) from exc
