"""Templates as Docker's, filters and fields of containers."""

from __future__ import annotations

import argparse
from dataclasses import replace

import pytest

from migrate.cli import container_fields, prune, templates, values
from migrate.records import Health, HealthResult, Mount
from tests.unit.migrate.cli.test_output import CONTAINER

pytestmark = pytest.mark.unit

FIELDS = {
    "ID": "abc",
    "Names": "web1",
    "State": {"Health": {"Status": "healthy"}},
    "Label": {"tier": "web"},
    "ok": True,
}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{{.ID}}: {{ .Names }}", "abc: web1"),
        (r"{{.ID}}\t{{.id}}", "abc\tabc"),
        ("{{.State.Health.Status}}", "healthy"),
        ("{{json .State}}", '{"Health": {"Status": "healthy"}}'),
        ('{{.Label "tier"}}{{.Label "none"}}', "web"),
        ("{{upper .Names}} {{.ok}}", "WEB1 true"),
        (r"table {{.ID}}\t{{.Names}}", "CONTAINER ID  NAMES\nabc           web1"),
    ],
)
def test_what_templates_show(text: str, shown: str) -> None:
    """Fields, functions, labels, tables."""
    assert templates.show(templates.form(text), [FIELDS]) == shown


def test_what_no_template_is() -> None:
    """A word, a piece of Go that is not understood, a field that is not there."""
    for wrong in ("yaml", "{{range .X}}{{end}}"):
        with pytest.raises(argparse.ArgumentTypeError):
            templates.form(wrong)
    with pytest.raises(argparse.ArgumentTypeError, match="there is no field"):
        templates.show("{{.Nothing}}", [FIELDS])


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("name", "^web", True),
        ("name", "^eb", False),
        ("id", CONTAINER.id[:5], True),
        ("ancestor", CONTAINER.image, True),
        ("health", "unhealthy", True),
        ("health", "none", False),
        ("exited", "0", False),
        ("network", "bridge", True),
        ("volume", "data", True),
        ("volume", "/srv", True),
        ("volume", "other", False),
    ],
)
def test_filters(key: str, value: str, expected: bool) -> None:
    """Docker's names and meanings."""
    mounts = (Mount(kind="volume", source="data", target="/srv"),)
    one = replace(CONTAINER, health_now=Health(status="unhealthy"), mounts=mounts)
    assert container_fields.matches(one, [(key, value)]) is expected


def test_before_and_since_name_another_container() -> None:
    """Older and younger than that one."""
    older, younger = replace(CONTAINER, created_unix_ns=1), replace(CONTAINER, name="late", created_unix_ns=2)
    both = [older, younger]
    assert [one.name for one in both if container_fields.matches(one, [("before", "late")], both)] == [CONTAINER.name]
    assert [one.name for one in both if container_fields.matches(one, [("since", CONTAINER.name)], both)] == ["late"]


def test_dockers_words_for_a_state() -> None:
    """Up with its health, restarting with its code; the health of one that is checked in `inspect`."""
    result = HealthResult(started_unix_ns=1, ended_unix_ns=2, exit_code=1, output="no")
    ill = replace(CONTAINER, health_now=Health(status="unhealthy", failing_streak=3, log=(result,)))
    assert container_fields.docker_status(ill).endswith("(unhealthy)")
    assert container_fields.docker_status(ill).startswith("Up ")
    again = replace(CONTAINER, state="restarting", exit_code=3, restarts=2, finished_unix_ns=1)
    assert container_fields.docker_status(again).startswith("Restarting (3) ")
    shown = container_fields.inspected(ill)
    assert shown["State"]["Health"]["Log"][0]["Output"] == "no"
    assert "Health" not in container_fields.inspected(CONTAINER)["State"]


def test_keys_that_let_go() -> None:
    """As Docker writes them; no key at all is allowed, nonsense is not."""
    assert values.keys("ctrl-p,ctrl-q") == b"\x10\x11"
    assert values.keys("ctrl-a,d,ctrl-@") == b"\x01d\x00"
    assert values.keys("") == b""
    with pytest.raises(argparse.ArgumentTypeError):
        values.keys("shift-x")


def test_what_a_prune_spares() -> None:
    """Younger ones and those with a label that is excluded."""
    one = replace(CONTAINER, created_unix_ns=1, labels={"keep": "1"})
    assert prune.fits(one, [("until", "1h")])
    assert not prune.fits(one, [("until", "1h"), ("label!", "keep")])
    assert prune.fits(one, [("label", "keep=1")])
    assert not prune.fits(one, [("label", "keep=2")])
