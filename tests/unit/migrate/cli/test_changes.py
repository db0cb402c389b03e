"""Lines of a Dockerfile as image defaults."""

from __future__ import annotations

import argparse

import pytest

from migrate.cli import changes
from migrate.records import ImageDefaults

pytestmark = pytest.mark.unit


def test_changes_become_the_images_defaults() -> None:
    """Both forms of CMD, several ENV, quotes, later lines over earlier ones."""
    defaults = changes.apply(
        [
            'ENTRYPOINT ["/bin/server", "--flag"]',
            "CMD echo first",
            'cmd ["second"]',
            'ENV A="1 2" B=3',
            "ENV C old form",
            "ENV B=4",
            "WORKDIR /srv",
            "USER www-data:www-data",
            'LABEL tier=web note="two words"',
            "STOPSIGNAL quit",
        ]
    )
    assert defaults == ImageDefaults(
        cmd=("second",),
        entrypoint=("/bin/server", "--flag"),
        env=("A=1 2", "B=4", "C=old form"),
        working_dir="/srv",
        user="www-data:www-data",
        labels={"tier": "web", "note": "two words"},
        stop_signal="SIGQUIT",
    )


def test_the_shell_form_runs_a_shell() -> None:
    """As in a Dockerfile."""
    assert changes.apply(["CMD echo $HOME | cat"]).cmd == ("/bin/sh", "-c", "echo $HOME | cat")


@pytest.mark.parametrize(
    "change", ["", "NONSENSE x", "CMD", 'CMD ["a"', "CMD [1]", "WORKDIR srv", "ENV A", "LABEL a=1 b", "STOPSIGNAL NO"]
)
def test_a_wrong_change_is_named(change: str) -> None:
    """The whole line is in the error."""
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        changes.apply([change])
    assert f"--change {change!r}" in str(caught.value)
