"""What each instruction means: from the state before it to the state after it and what has to be done. Pure functions.

    State(config, arguments) ── evaluate(instruction) ──► State', Action      Action: Nothing, MakeDirectory, Copy, Execute

Variables are replaced here; RUN, CMD, ENTRYPOINT and HEALTHCHECK leave theirs to the shell.
"""

from __future__ import annotations

import dataclasses
import posixpath
import re
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from e2b_dockerfile_utils import parse_heredoc

from agent.build import mountflag, plan, variables
from agent.build.dockerfile import DockerfileError, Heredoc, Instruction
from agent.build.mountflag import Mount
from agent.storage.manifest import Healthcheck, ImageConfig

DEFAULT_SHELL = ("/bin/sh", "-c")
SCRIPT = "/run/build-scripts"  # where a here-document that begins with #! is, while it runs
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNITS_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """Only the config changes."""


@dataclass(frozen=True, kw_only=True)
class MakeDirectory:
    """WORKDIR: `path` is absolute; a directory that is there stays as it is."""

    path: str


@dataclass(frozen=True, kw_only=True)
class Copy:
    """COPY and ADD. `destination`: absolute; `into`: it is a directory that the sources go into. `from_`: stage or
    image, "" = the context. `documents`: (name, contents) of here-documents. `owner`, `mode`: "" = as they are.
    """

    sources: tuple[str, ...]
    documents: tuple[tuple[str, str], ...]
    destination: str
    into: bool
    from_: str = ""
    owner: str = ""
    mode: str = ""
    exclude: tuple[str, ...] = ()
    parents: bool = False
    unpack: bool = False  # archives among the sources are unpacked
    unpack_fetched: bool = False  # those of URLs too
    checksum: str = ""


@dataclass(frozen=True, kw_only=True)
class Execute:
    """RUN. `script`: contents of the executable that argv[0] names, "" for none. `hidden`: variables that count
    neither for the cache nor for the image (proxies).
    """

    argv: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str
    network: str = ""
    mounts: tuple[Mount, ...] = ()
    script: str = ""
    hidden: tuple[str, ...] = ()


Action = Nothing | MakeDirectory | Copy | Execute


@dataclass(frozen=True, kw_only=True)
class State:
    """A stage between two instructions, its files apart. `arguments`: ARGs declared so far. `cmd_here`: CMD stood in
    this stage, so that ENTRYPOINT leaves it.
    """

    config: ImageConfig = field(default_factory=ImageConfig)
    arguments: Mapping[str, str | None] = field(default_factory=dict)
    author: str = ""
    cmd_here: bool = False

    @property
    def environment(self) -> dict[str, str]:
        return dict(entry.partition("=")[::2] for entry in self.config.env)

    @property
    def values(self) -> dict[str, str]:
        """What variables stand for: ARGs, and ENV over them."""
        known = {name: value for name, value in self.arguments.items() if value is not None}
        return known | self.environment

    @property
    def shell(self) -> tuple[str, ...]:
        return self.config.shell or DEFAULT_SHELL


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What is the same for the whole build. `outer`: ARGs before the first FROM, and the platform."""

    escape: str
    build_args: Mapping[str, str] = field(default_factory=dict)
    outer: Mapping[str, str] = field(default_factory=dict)


def evaluate(state: State, one: Instruction, scope: Scope) -> tuple[State, Action]:
    """Raises DockerfileError."""
    return _EVALUATE[one.name](state, one, scope)


# ------------------------------------------------------------ only the config


def _config(state: State, **changes: object) -> tuple[State, Action]:
    config = dataclasses.replace(state.config, **changes)  # type: ignore[arg-type]  # names of its fields
    return dataclasses.replace(state, config=config), Nothing()


def _word(state: State, one: Instruction, scope: Scope, text: str = "") -> str:
    return variables.word(text or one.args[0], state.values, scope.escape, one.place)


def _pairs(state: State, one: Instruction, scope: Scope) -> dict[str, str]:
    """All values are looked up before the first is set."""
    words = [variables.word(text, state.values, scope.escape, one.place) for text in one.args]
    pairs = dict(zip(words[::2], words[1::2], strict=True))
    if "" in pairs:
        raise DockerfileError(one.place, f"{one.name}: a name is empty")
    return pairs


def _arg(state: State, one: Instruction, scope: Scope) -> tuple[State, Action]:
    found = plan.declared(one, state.values, scope.escape, scope.build_args, scope.outer)
    return dataclasses.replace(state, arguments={**state.arguments, **found}), Nothing()


def _env(state: State, one: Instruction, scope: Scope) -> tuple[State, Action]:
    merged = state.environment | _pairs(state, one, scope)
    return _config(state, env=tuple(f"{name}={value}" for name, value in merged.items()))


def _label(state: State, one: Instruction, scope: Scope) -> tuple[State, Action]:
    return _config(state, labels={**state.config.labels, **_pairs(state, one, scope)})


def _maintainer(state: State, one: Instruction, _scope: Scope) -> tuple[State, Action]:
    return dataclasses.replace(state, author=one.args[0]), Nothing()


def _user(state: State, one: Instruction, scope: Scope) -> tuple[State, Action]:
    user = _word(state, one, scope)
    if not user or " " in user:
        raise DockerfileError(one.place, f"USER takes a name or a number, and :group, not {user!r}")
    return _config(state, user=user)


def _expose(state: State, one: Instruction, scope: Scope) -> tuple[State, Action]:
    ports = set(state.config.exposed_ports)
    for text in one.args:
        for word in variables.words(text, state.values, scope.escape, one.place):
            found = _PORT.fullmatch(word.lower())
            first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
            if not found or not 0 < first <= last <= 65535:
                raise DockerfileError(one.place, f"EXPOSE {word}: no port", hint="such as 80, 53/udp, 8000-8010")
            ports |= {f"{port}/{found[3] or 'tcp'}" for port in range(first, last + 1)}
    return _config(state, exposed_ports=tuple(sorted(ports, key=lambda port: (int(port.partition("/")[0]), port))))


def _volume(state: State, one: Instruction, scope: Scope) -> tuple[State, Action]:
    paths = dict.fromkeys(state.config.volumes)
    for text in one.args:
        path = _word(state, one, scope, text)
        if not path:
            raise DockerfileError(one.place, "VOLUME: a path is empty")
        paths.setdefault(posixpath.join("/", path))
    return _config(state, volumes=tuple(paths))


def _stopsignal(state: State, one: Instruction, scope: Scope) -> tuple[State, Action]:
    name = _word(state, one, scope)
    known = name.isdigit() and 0 < int(name) <= 64
    if not known and "SIG" + name.upper().removeprefix("SIG") not in signal.Signals.__members__:
        raise DockerfileError(one.place, f"STOPSIGNAL: unknown signal {name!r}", hint="SIGTERM, SIGQUIT, 15, ...")
    return _config(state, stop_signal=name)


def _shell(state: State, one: Instruction, _scope: Scope) -> tuple[State, Action]:
    return _config(state, shell=one.args)


def _command(state: State, one: Instruction) -> tuple[str, ...]:
    return one.args if one.json or not one.args else (*state.shell, one.args[0])


def _cmd(state: State, one: Instruction, _scope: Scope) -> tuple[State, Action]:
    return _config(dataclasses.replace(state, cmd_here=True), cmd=_command(state, one))


def _entrypoint(state: State, one: Instruction, _scope: Scope) -> tuple[State, Action]:
    kept = state.config.cmd if state.cmd_here else ()  # the base's CMD were arguments for another program
    return _config(state, entrypoint=_command(state, one), cmd=kept)


def _healthcheck(state: State, one: Instruction, _scope: Scope) -> tuple[State, Action]:
    if one.args[0].upper() == "NONE":
        return _config(state, healthcheck=Healthcheck(test=("NONE",)))
    retries = one.flag("retries")
    if retries and not retries.isdigit():
        raise DockerfileError(one.place, f"--retries takes a number, not {retries!r}")
    return _config(
        state,
        healthcheck=Healthcheck(
            test=("CMD", *one.args[1:]) if one.json else ("CMD-SHELL", one.args[1]),
            interval_ns=_duration(one, "interval"),
            timeout_ns=_duration(one, "timeout"),
            start_period_ns=_duration(one, "start-period"),
            retries=int(retries or 0),
            start_interval_ns=_duration(one, "start-interval"),
        ),
    )


def _duration(one: Instruction, flag: str) -> int:
    """Nanoseconds of Go's "1m30s"; 0 where the flag is not given."""
    text = one.flag(flag)
    parts = _DURATION.findall(text)
    if text and "".join(number + unit for number, unit in parts) != text:
        raise DockerfileError(one.place, f"--{flag} takes a time such as 30s or 1m30s, not {text!r}")
    return int(sum(float(number) * _UNITS_NS[unit] for number, unit in parts))


def _onbuild(state: State, one: Instruction, _scope: Scope) -> tuple[State, Action]:
    return _config(state, on_build=(*state.config.on_build, one.args[0]))


# ------------------------------------------------------------ files


def _workdir(state: State, one: Instruction, scope: Scope) -> tuple[State, Action]:
    path = absolute(state, _word(state, one, scope))
    return _config(state, working_dir=path)[0], MakeDirectory(path=path)


def absolute(state: State, path: str) -> str:
    """From the working directory; normalised, so ".." ends at the root."""
    return posixpath.normpath(posixpath.join("/", state.config.working_dir, path))


def _copy(state: State, one: Instruction, scope: Scope) -> tuple[State, Action]:
    words = [_word(state, one, scope, text) for text in one.args]
    pending = list(one.heredocs)
    documents: list[tuple[str, str]] = []
    sources: list[str] = []
    for raw, word in zip(one.args[:-1], words[:-1], strict=True):
        if pending and not one.json and parse_heredoc(raw) is not None:
            documents.append(_document(pending.pop(0), state, one, scope))
        elif not word:
            raise DockerfileError(one.place, f"{one.name}: the source {raw!r} is empty")
        else:
            sources.append(word)
    target = words[-1]
    into = target.endswith("/") or posixpath.basename(target) in (".", "..")
    if not target:
        raise DockerfileError(one.place, f"{one.name}: the destination {one.args[-1]!r} is empty")
    if len(sources) + len(documents) > 1 and not into:
        raise DockerfileError(
            one.place,
            f"{one.name} with several sources needs a directory as destination",
            hint=f"end it with a slash: {target}/",
        )
    from_ = _word(state, one, scope, one.flag("from")) if one.flag("from") else ""
    one.switch("link")  # checked: our layers do not depend on what is below, except for the directories on the way
    if one.switch("keep-git-dir"):
        raise DockerfileError(one.place, "ADD from git repositories is not supported", hint="clone into the context")
    add = one.name == "ADD"
    flagged = any(name == "unpack" for name, _ in one.flags)
    return state, Copy(
        sources=tuple(sources),
        documents=tuple(documents),
        destination=absolute(state, target),
        into=into,
        from_=from_,
        owner=_word(state, one, scope, one.flag("chown")) if one.flag("chown") else "",
        mode=_word(state, one, scope, one.flag("chmod")) if one.flag("chmod") else "",
        exclude=tuple(_word(state, one, scope, text) for text in one.flag_values("exclude")),
        parents=one.switch("parents"),
        unpack=one.switch("unpack") if flagged else add,
        unpack_fetched=one.switch("unpack"),
        checksum=_word(state, one, scope, one.flag("checksum")) if one.flag("checksum") else "",
    )


def _document(document: Heredoc, state: State, one: Instruction, scope: Scope) -> tuple[str, str]:
    if not document.expand:
        return document.name, document.content
    content = variables.word(document.content, state.values, scope.escape, one.place, quotes=False)
    return document.name, content


def _run(state: State, one: Instruction, scope: Scope) -> tuple[State, Action]:
    argv, script = _command(state, one), ""
    if one.heredocs:
        line, first = one.args[0], one.heredocs[0]
        if parse_heredoc(line) is None:  # one in the middle of a command: the shell's own affair
            line += "".join(f"\n{document.content}{document.name}" for document in one.heredocs)
            argv = (*state.shell, line)
        elif first.content.startswith("#!"):
            argv, script = (f"{SCRIPT}/{first.name}",), first.content
        else:
            argv = (*state.shell, first.content)
    network = one.flag("network")
    if network not in ("", "default", "none", "host"):
        raise DockerfileError(one.place, f"--network is default, none or host, not {network!r}")
    if one.flag("security") not in ("", "sandbox"):
        raise DockerfileError(one.place, f"--security={one.flag('security')} is not supported", hint="leave it out")
    environment = state.environment
    arguments = {name: value for name, value in state.arguments.items() if value is not None}
    env = {**arguments, **environment}
    hidden = {
        name: scope.build_args[name] for name in variables.PROXIES if name in scope.build_args and name not in env
    }
    return state, Execute(
        argv=argv,
        env=tuple(f"{name}={value}" for name, value in env.items()),
        cwd=state.config.working_dir or "/",
        user=state.config.user,
        network="" if network == "default" else network,
        mounts=tuple(
            mountflag.parse(_word(state, one, scope, text), state.config.working_dir or "/", one.place)
            for text in one.flag_values("mount")
        ),
        script=script,
        hidden=tuple(f"{name}={value}" for name, value in hidden.items()),
    )


_EVALUATE: Mapping[str, Callable[[State, Instruction, Scope], tuple[State, Action]]] = {
    "ADD": _copy,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": _copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
