"""A container's seccomp filter: from its profile (the default one, or Docker's JSON) to a file with the ready program.

    profile + capabilities ── rules ── libseccomp ──► RUN_DIR/seccomp/KEY.bpf ──► path in init's plan and in exec's request

Compiling takes tens of milliseconds, so a filter is compiled once: the next container with the same profile and capabilities looks
it up. In a move CRIU carries the filters of all tasks; the file is for the next start and for `exec`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import platform
import re
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent import atomic
from agent.engine import seccomp_profile
from agent.engine.spec import DEFAULT_CAPABILITIES, ContainerSpec
from agent.errors import InvalidArgument, Unsupported
from agent.linux import libseccomp, seccomp
from agent.linux.libseccomp import Condition, Rule

log = logging.getLogger(__name__)
UNCONFINED = "unconfined"
_HINT = "a profile is JSON as Docker's: docs/security.md; seccomp=unconfined for none"
_GO_ARCHITECTURES = {  # as `arches` of a profile says it
    "x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "x86", "riscv64": "riscv64", "s390x": "s390x", "ppc64le": "ppc64le",
}  # fmt: skip
_TOKENS = {"X86_64": "x86_64", "AARCH64": "aarch64", "RISCV64": "riscv64", "S390X": "s390x", "PPC64LE": "ppc64le"}


class Filters:
    """The compiled filters of a host, in `directory`. Any number of threads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._guard = threading.Lock()
        self._known: dict[tuple[str, tuple[str, ...]], Path] = {}

    def path(self, spec: ContainerSpec) -> str:
        """The file with the program for this container, "" for one without a filter. Raises InvalidArgument with what is wrong
        with its profile, Unsupported without libseccomp.
        """
        profile = spec.isolation.seccomp
        if profile == UNCONFINED:
            return ""
        key = (profile, spec.capabilities)
        with self._guard:
            path = self._known.get(key)
            if path is None or not path.exists():
                path = self._known[key] = self._compiled(profile, spec.capabilities)
        return str(path)

    def prepare(self) -> None:
        """Ahead of need, what most containers have."""
        with self._guard:
            try:
                self._known["", DEFAULT_CAPABILITIES] = self._compiled("", DEFAULT_CAPABILITIES)
            except Unsupported as exc:
                log.error("%s (%s)", exc.message, exc.hint)  # each container says so too

    def _compiled(self, profile: str, capabilities: Sequence[str]) -> Path:
        try:
            libseccomp.load()
        except OSError as exc:
            raise Unsupported(
                f"no seccomp filter can be made: {exc.strerror}",
                hint="apt-get install libseccomp2, or --security-opt seccomp=unconfined",
            ) from exc
        what = parse(profile, capabilities) if profile else seccomp_profile.default(capabilities)
        named = hashlib.sha256(repr((what, libseccomp.version())).encode()).hexdigest()[:32]
        path = self._directory / f"{named}.bpf"
        if path.exists():
            return path
        try:
            program = libseccomp.compile_filter(*what)
        except OSError as exc:
            raise InvalidArgument(f"the seccomp profile makes no filter: {exc.strerror}", hint=_HINT) from exc
        length = len(program) // seccomp.INSTRUCTION_BYTES
        if length > seccomp.MAX_INSTRUCTIONS:
            raise InvalidArgument(
                f"the seccomp profile makes a filter of {length} instructions, the kernel takes {seccomp.MAX_INSTRUCTIONS}",
                hint="fewer conditions, or fewer architectures",
            )
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic.write(path, program)
        return path


def parse(
    text: str, capabilities: Collection[str], *, machine: str = "", kernel: str = ""
) -> tuple[int, list[Rule], list[str]]:
    """What compile_filter() takes, of a profile in Docker's format, on a machine and kernel as platform.machine() and release()
    say it ("" = here). Raises InvalidArgument.
    """
    machine, kernel = machine or platform.machine(), kernel or platform.release()
    try:
        raw = json.loads(text)
    except ValueError as exc:
        raise InvalidArgument(f"the seccomp profile is not JSON: {exc}", hint=_HINT) from exc
    if not isinstance(raw, dict) or "defaultAction" not in raw:
        raise InvalidArgument("the seccomp profile has no defaultAction", hint=_HINT)
    try:
        default = _action(raw["defaultAction"], raw.get("defaultErrnoRet"), raw.get("defaultErrno"))
        rules: list[Rule] = []
        for entry in raw.get("syscalls") or ():
            if _applies(entry, capabilities, machine, kernel):
                rules += _rules(entry)
        if raw.get("listenerPath"):
            raise _bad("listenerPath: nothing here listens")
        return default, rules, _architectures(raw, machine)
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise _bad(f"it is not of the right form: {exc!r}") from exc


def _applies(entry: Mapping[str, Any], capabilities: Collection[str], machine: str, kernel: str) -> bool:
    includes, excludes = entry.get("includes") or {}, entry.get("excludes") or {}
    architecture = _GO_ARCHITECTURES.get(machine, machine)
    if architecture in (excludes.get("arches") or ()) or set(excludes.get("caps") or ()) & set(capabilities):
        return False
    if excludes.get("minKernel") and _version(kernel) >= _version(excludes["minKernel"]):
        return False
    if includes.get("arches") and architecture not in includes["arches"]:
        return False
    if includes.get("minKernel") and _version(kernel) < _version(includes["minKernel"]):
        return False
    return set(includes.get("caps") or ()) <= set(capabilities)


def _rules(entry: Mapping[str, Any]) -> list[Rule]:
    names = entry.get("names") or ()
    if entry.get("name"):
        if names:
            raise _bad(f"name and names in one rule ({entry['name']})")
        names = (entry["name"],)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise _bad("a rule without names of system calls")
    action = _action(entry["action"], entry.get("errnoRet"), entry.get("errno"))
    conditions = tuple(_condition(one) for one in entry.get("args") or ())
    if len({one.index for one in conditions}) < len(conditions):  # two of one argument cannot hold together: any
        return [Rule(names=tuple(names), action=action, conditions=(one,)) for one in conditions]
    return [Rule(names=tuple(names), action=action, conditions=conditions)]


def _condition(raw: Mapping[str, Any]) -> Condition:
    comparison = str(raw["op"]).removeprefix("SCMP_CMP_")
    if comparison not in libseccomp.COMPARISONS:
        raise _bad(f"unknown comparison {raw['op']!r}")
    index, value, other = (_whole(raw.get(key, 0)) for key in ("index", "value", "valueTwo"))
    if index > 5:
        raise _bad(f"system calls have no argument {index}")
    return Condition(index=index, comparison=comparison, value=value, other=other)


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 64:
        raise _bad(f"{value!r} is no number of an argument")
    return value


def _action(name: str, number: int | None, word: str | None) -> int:
    if number is None:
        number = getattr(errno, word) if word and word in errno.errorcode.values() else errno.EPERM
    kind = str(name).removeprefix("SCMP_ACT_")
    fixed = {
        "ALLOW": libseccomp.ALLOW, "LOG": libseccomp.LOG, "KILL": libseccomp.KILL_THREAD, "KILL_THREAD": libseccomp.KILL_THREAD,
        "KILL_PROCESS": libseccomp.KILL_PROCESS, "ERRNO": libseccomp.errno_action(number),
        "TRACE": libseccomp.trace_action(number), "TRAP": libseccomp.trap_action(0),
    }  # fmt: skip
    if kind == "NOTIFY":
        raise _bad("SCMP_ACT_NOTIFY: nothing here listens")
    if kind not in fixed:
        raise _bad(f"unknown action {name!r}")
    return fixed[kind]


def _architectures(raw: Mapping[str, Any], machine: str) -> list[str]:
    if raw.get("architectures") and raw.get("archMap"):
        raise _bad("architectures and archMap, of which one is enough")
    names = list(raw.get("architectures") or ())
    for one in raw.get("archMap") or ():
        if _TOKENS.get(_short(one["architecture"])) == machine:
            names += one.get("subArchitectures") or ()
    return [_short(name).lower() for name in names]


def _short(architecture: str) -> str:
    return str(architecture).removeprefix("SCMP_ARCH_")


def _version(text: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", str(text))
    if not found:
        raise _bad(f"{text!r} is no version of a kernel")
    return int(found[1]), int(found[2])


def _bad(what: str) -> InvalidArgument:
    return InvalidArgument(f"the seccomp profile cannot be used: {what}", hint=_HINT)
