"""The options about what processes find inside, and those that are known and not there."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from migrate.cli import inside, refused, run
from migrate.records import Secret

pytestmark = pytest.mark.unit


def parsed(*words: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser(exit_on_error=False)
    inside.add_options(parser)
    return inside.fields(parser.parse_args(words))


def test_options_become_fields(tmp_path: Path) -> None:
    """A secret's contents are read here and go beside it, under its name."""
    (tmp_path / "token").write_bytes(b"hush\n")
    found = parsed(
        "--group-add", "audio", "--group-add=29", "--domainname", "example.org", "--umask", "027", "--tz", "local", "--unsetenv", "A",
        "--annotation", "a=b", "--platform", "linux/arm64/v8", "--secret", f"id=t,src={tmp_path}/token,target=x/y,uid=5,gid=6,mode=0400",
    )  # fmt: skip
    assert found == {
        "groups": ("audio", "29"),
        "domainname": "example.org",
        "umask": "027",
        "timezone": "local",
        "annotations": {"a": "b"},
        "secrets": (Secret(name="t", target="/run/secrets/x/y", uid=5, gid=6, mode=0o400),),
        "secret_data": {"t": b"hush\n"},
        "platform": "linux/arm64/v8",
        "unset_env": ("A",),
    }


def test_a_secret_may_be_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the caller's environment; one that is not set is an error."""
    monkeypatch.setenv("HUSH", "x")
    assert parsed("--secret", "id=t,env=HUSH")["secret_data"] == {"t": b"x"}
    monkeypatch.delenv("HUSH")
    with pytest.raises(argparse.ArgumentTypeError, match="no variable HUSH"):
        parsed("--secret", "id=t,env=HUSH")


@pytest.mark.parametrize(
    "words",
    [
        ("--secret", "src=/etc/passwd"),
        ("--secret", "id=t"),
        ("--secret", "id=t,src=/no/such/file"),
        ("--secret", "id=t,src=/etc/hostname,type=tmpfs"),
        ("--secret", "id=t,src=/etc/passwd,mode=rw"),
        ("--secret", "id=t,src=/etc/passwd", "--secret", "id=t,src=/etc/group"),
        ("--umask", "9"),
        ("--platform", "arm64"),
    ],
)
def test_what_is_wrong_is_refused(words: tuple[str, ...]) -> None:
    """With an example of what it takes."""
    with pytest.raises((argparse.ArgumentTypeError, argparse.ArgumentError)):
        parsed(*words)


@pytest.mark.parametrize("option", sorted(refused.RUN))
def test_options_that_are_not_there_say_what_to_use(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No "unrecognized argument": the reason, and the way to the same."""
    parser = argparse.ArgumentParser()
    refused.add_options(parser)
    with pytest.raises(SystemExit):
        parser.parse_args([option, "value"] if refused.RUN[option][0] else [option])
    said = capsys.readouterr().err
    assert f"{option} is not there" in said
    assert ": " in refused.RUN[option][1] and option not in parser.format_help()


def test_systemd_is_refused_unless_it_is_off() -> None:
    """--systemd=false is what there is."""
    assert refused.systemd("false") == "false"
    for text in ("always", "true"):
        with pytest.raises(argparse.ArgumentTypeError, match="run the service itself"):
            refused.systemd(text)


def test_streams_to_attach() -> None:
    """Any case, as Docker takes them; nothing else."""
    assert run.stream("STDOUT") == "stdout"
    with pytest.raises(argparse.ArgumentTypeError):
        run.stream("all")
