"""From profiles to filters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.engine import seccomp, seccomp_profile
from agent.engine.spec import DEFAULT_CAPABILITIES, ContainerSpec, IdRange, Isolation, Network
from agent.errors import InvalidArgument
from agent.linux import libseccomp
from agent.linux.libseccomp import ALLOW, Condition, Rule, errno_action

pytestmark = pytest.mark.unit
ADMIN = (*DEFAULT_CAPABILITIES, "CAP_SYS_ADMIN")


def spec(profile: str, capabilities: tuple[str, ...] = DEFAULT_CAPABILITIES) -> ContainerSpec:
    return ContainerSpec(
        id="0" * 32,
        name="one",
        image="",
        image_digest="",
        layers=(),
        argv=("x",),
        env=(),
        cwd="/",
        user="",
        hostname="one",
        ids=IdRange(base=65536),
        network=Network(address="", mac=""),
        capabilities=capabilities,
        isolation=Isolation(seccomp=profile),
    )


def parse(**profile: Any) -> tuple[int, list[Rule], list[str]]:
    return seccomp.parse(json.dumps(profile), DEFAULT_CAPABILITIES, machine="x86_64", kernel="6.1.0")


def allowed(capabilities: tuple[str, ...]) -> set[str]:
    rules = seccomp_profile.default(capabilities, "x86_64")[1]
    return {name for rule in rules if rule.action == ALLOW and not rule.conditions for name in rule.names}


def test_what_a_capability_opens() -> None:
    """mount, setns, bpf and their like are closed without the capability that they are for, and clone makes no namespaces then."""
    closed = {
        "mount",
        "setns",
        "unshare",
        "bpf",
        "perf_event_open",
        "fsopen",
        "clone",
        "clone3",
        "keyctl",
        "userfaultfd",
    }
    assert not closed & allowed(DEFAULT_CAPABILITIES)
    assert closed & allowed(ADMIN) == closed - {"keyctl", "userfaultfd"}
    rules = seccomp_profile.default(DEFAULT_CAPABILITIES, "x86_64")[1]
    assert Rule(
        names=("clone",), action=ALLOW, conditions=(Condition(index=0, comparison="MASKED_EQ", value=0x7E020000),)
    ) in rules  # fmt: skip
    assert Rule(names=("clone3",), action=errno_action(38)) in rules


def test_every_name_of_the_default_profile_is_a_system_call() -> None:
    """A name that was misspelt would be a call that nobody may make, without a word."""
    everything = tuple(f"CAP_{line.partition(':')[0]}" for line in seccomp_profile.WITH_CAPABILITY.strip().splitlines())
    for machine in seccomp_profile.ON_ARCHITECTURE:
        for rule in seccomp_profile.default(everything, machine)[1]:
            assert [name for name in rule.names if not libseccomp.knows(name)] == []


def test_a_profile_says_what_docker_s_says() -> None:
    """Actions, errnos, conditions, architectures and the rules that depend on capabilities, architecture and kernel."""
    default, rules, architectures = parse(
        defaultAction="SCMP_ACT_ERRNO",
        defaultErrnoRet=38,
        archMap=[{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}],
        syscalls=[
            {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
            {"name": "write", "action": "SCMP_ACT_ERRNO", "errnoRet": 5},
            {"names": ["chroot"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_CHROOT"]}},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_CHOWN"]}},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["kcmp"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "9.0"}},
            {"names": ["acct"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
            {"names": ["iopl"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64"]}},
            {"names": ["dup"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 1, "value": 7, "op": "SCMP_CMP_NE"}]},
            {
                "names": ["personality"],
                "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "value": n, "op": "SCMP_CMP_EQ"} for n in (0, 8)],
            },
        ],
    )  # fmt: skip
    assert (default, architectures) == (errno_action(38), ["x86", "x32"])
    assert [rule.names[0] for rule in rules] == [
        "read",
        "write",
        "chroot",
        "ptrace",
        "dup",
        "personality",
        "personality",
    ]
    assert rules[1].action == errno_action(5)
    assert rules[4].conditions == (Condition(index=1, comparison="NE", value=7),)
    assert [len(rule.conditions) for rule in rules[5:]] == [1, 1]


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "no defaultAction"),
        ('{"defaultAction": "SCMP_ACT_MAYBE"}', "unknown action"),
        ('{"defaultAction": "SCMP_ACT_NOTIFY"}', "nothing here listens"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_ERRNO"}]}', "without names"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": 7}', "right form"),
        (
            '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO",'
            ' "args": [{"index": 9, "value": 0, "op": "SCMP_CMP_EQ"}]}]}',
            "no argument 9",
        ),
        (
            '{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["a"], "archMap": [{"architecture": "a"}]}',
            "one is enough",
        ),
    ],
)
def test_a_bad_profile_is_refused(tmp_path: Path, profile: str, words: str) -> None:
    """With what is wrong in it."""
    with pytest.raises(InvalidArgument, match=words):
        seccomp.Filters(tmp_path / "filters").path(spec(profile))


def test_a_filter_is_compiled_once(tmp_path: Path) -> None:
    """The next container, and the next agent, look it up; other capabilities are another filter; unconfined is none."""
    filters = seccomp.Filters(tmp_path / "filters")
    first = filters.path(spec(""))
    written = Path(first).stat().st_mtime_ns
    assert seccomp.Filters(tmp_path / "filters").path(spec("")) == first
    assert Path(first).stat().st_mtime_ns == written
    assert filters.path(spec("", ADMIN)) != first
    assert filters.path(spec("unconfined")) == ""
    Path(first).unlink()
    assert filters.path(spec("")) == first  # compiled again
    assert len(Path(first).read_bytes()) % 8 == 0


def test_unknown_calls_are_left_out(tmp_path: Path) -> None:
    """As Docker does: a profile may name calls that are younger than this host."""
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["no_such", "mkdir"], "action": "SCMP_ACT_ERRNO"}],
    }
    assert Path(seccomp.Filters(tmp_path).path(spec(json.dumps(profile)))).stat().st_size > 0
