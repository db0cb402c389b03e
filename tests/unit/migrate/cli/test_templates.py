"""Templates as Docker's, filters and fields of containers."""

from __future__ import annotations

import argparse
from dataclasses import replace

import pytest

from migrate.cli import container_fields, prune, templates, values
from migrate.cli.free import Free
from migrate.records import Health, HealthResult, Mount
from tests.unit.migrate.cli.test_output import CONTAINER

pytestmark = pytest.mark.unit

FIELDS = {
    "ID": "abc",
    "Names": "web1",
    "State": {"Health": {"Status": "healthy"}},
    "Label": {"tier": "web"},
    "Labels": Free({"tier": "web"}),
    "Cmd": ["sleep", "1d"],
    "Mounts": [{"Source": "x", "Destination": "/a"}, {"Source": "y", "Destination": "/b"}],
    "Nil": None,
    "Count": 3,
    "ok": True,
}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{{.ID}}: {{ .Names }}", "abc: web1"),
        (r"{{.ID}}\t{{.id}}", "abc\tabc"),
        ("{{.State.Health.Status}}", "healthy"),
        ("{{json .State}}", '{"Health":{"Status":"healthy"}}'),
        ("{{.State}} {{.Cmd}} {{.Nil}}", "map[Health:map[Status:healthy]] [sleep 1d] <no value>"),
        ('{{index .Labels "tier"}} {{.Labels.tier}} {{.Labels.none}}', "web web <no value>"),
        ('{{join .Cmd ","}} {{index .Cmd 1}} {{len .Cmd}}', "sleep,1d 1d 2"),
        ("{{range .Mounts}}{{.Destination}};{{else}}none{{end}}", "/a;/b;"),
        ("{{range $i, $m := .Mounts}}{{if $i}}, {{end}}{{$m.Source}}{{end}}", "x, y"),
        ("{{range .Nil}}{{.}}{{else}}none{{end}}", "none"),
        ('{{if eq .Names "db"}}a{{else if .ok}}b{{else}}c{{end}}', "b"),
        ('{{with .State.Health}}{{.Status | printf "%-9s|"}}{{end}}', "healthy  |"),
        ("{{ (index .Mounts 0).Source }}{{- /* nothing */ -}} {{ .ID | upper | json }}", 'x"ABC"'),
        ("a {{- .ID -}} b", "aabcb"),
        ("{{.ID}} {{- .ID}} {{.ID -}} {{.ID}}", "abcabc abcabc"),
        ("{{$x := .ID}}{{$x}}{{$.Names}}", "abcweb1"),
        ("{{if and .ok (not .Nil) (ge .Count 3)}}yes{{end}} {{slice .ID 1}} {{.Count}}", "yes bc 3"),
        ("{{range $k, $v := .Label}}{{$k}}={{$v}}{{end}} {{json .Labels}}", 'tier=web {"tier":"web"}'),
        ('{{split "a:b" ":"}}{{println .ID}}', "[a b]abc\n"),
        (
            r'table {{upper .Names}}\t{{.Label "tier"}}\t{{range .Mounts}}{{.Source}}{{end}}',
            "NAMES  tier  SOURCE\nWEB1   web   xy",
        ),
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
    for wrong in (
        "yaml", "{{range .X}}", "{{end}}", "{{.ID", "{{}}", "{{nope .X}}", "{{.A..B}}", "{{(.A}}", "{{.A | }}", '{{"a}}',
        '{{template "x"}}', "{{else}}", "{{if .A}}{{else}}{{else}}{{end}}", "{{.A)}}", "{{$x, 1 := .A}}",
    ):  # fmt: skip
        with pytest.raises(argparse.ArgumentTypeError):
            templates.form(wrong)
    for wrong, why in (
        ("{{.Nothing}}", "there is no field"),
        ("{{.Names.Inner}}", "there is no field '.Names.Inner'"),
        ("{{$x}}", "there is no variable"),
        ("{{range .ID}}{{end}}", "range cannot go over"),
        ("{{index .Cmd 7}}", "index: there is no '7'"),
        ("{{len .Count}}", "len cannot work on '3'"),
        ('{{printf "%d"}}', "too few"),
        ('{{printf "%d" .ID}}', "printf cannot work"),
        ('{{.ID "x"}}', "only a function takes arguments"),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match=why):
            templates.show(templates.form(wrong), [FIELDS])


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
