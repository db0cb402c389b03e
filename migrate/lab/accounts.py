"""A node's passwd, group and shadow: the machine's, plus the user that sshd lets in. Text in, text out."""

from __future__ import annotations

from dataclasses import dataclass

USER = "migrate"


@dataclass(frozen=True, kw_only=True)
class Accounts:
    """The three files."""

    passwd: str
    group: str
    shadow: str


def with_user(machine: Accounts, *, shell: str) -> Accounts:
    """Add (or replace) the user and group `migrate`, `shell` being all that it may run.

    Its password is "*", no password, and not "!", locked: sshd without PAM refuses a locked account even with a good
    certificate.
    """
    passwd, group, shadow = (_without(text, USER) for text in (machine.passwd, machine.group, machine.shadow))
    number = _free_id(passwd, group)
    return Accounts(
        passwd=f"{passwd}{USER}:x:{number}:{number}:migrate's tunnels:/:{shell}\n",
        group=f"{group}{USER}:x:{number}:\n",
        shadow=f"{shadow}{USER}:*:19000:0:99999:7:::\n",
    )


def _without(text: str, name: str) -> str:
    return "".join(f"{line}\n" for line in text.splitlines() if not line.startswith(f"{name}:"))


def _free_id(passwd: str, group: str) -> int:
    """The highest id for system users that is neither a user's nor a group's."""
    taken = {line.split(":")[2] for line in (passwd + group).splitlines() if line.count(":") >= 3}
    return next(number for number in range(999, 99, -1) if str(number) not in taken)
