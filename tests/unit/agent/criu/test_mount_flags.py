"""What is forbidden on mounts: read from mountinfo, compared, and put back."""

from __future__ import annotations

import pytest

from agent.criu import mount_flags

pytestmark = pytest.mark.unit

MOUNTINFO = r"""
620 619 0:50 / / ro,relatime - overlay overlay rw,lowerdir=0,upperdir=w/upper
630 621 0:60 / /data rw,nosuid,nodev shared:3 master:1 - tmpfs tmpfs rw
621 620 0:61 / /data ro,noexec,noatime - tmpfs tmpfs ro,size=4k
622 620 8:1 /x /with\040space rw,nosymfollow - ext4 /dev/sda1 ro
""".strip()


def test_flags_are_the_mounts_own_and_of_two_at_one_point_the_lower_comes_first() -> None:
    """630 lies on 621 though it is listed before; what the file system's own flags say is not the mount's."""
    assert mount_flags.parse(MOUNTINFO) == [
        ("/", ["ro"]),
        ("/data", ["ro", "noexec"]),
        ("/data", ["nosuid", "nodev"]),
        ("/with space", ["nosymfollow"]),
    ]


def test_the_first_mount_of_a_namespace_may_be_its_own_parent() -> None:
    """As rootfs is."""
    assert mount_flags.parse("1 1 0:1 / / rw - rootfs rootfs rw") == [("/", [])]


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ([("/", ["ro"]), ("/a", ["nosuid", "ro"]), ("/a", ["noexec"])], []),
        ([("/", []), ("/a", ["nosuid"]), ("/a", ["noexec"])], [("/", ["ro"]), ("/a", ["ro"])]),
        ([("/", ["ro"]), ("/a", ["noexec"]), ("/a", ["nosuid", "ro"])], [("/a", ["nosuid", "ro"]), ("/a", ["noexec"])]),
        ([("/", ["ro"]), ("/a", ["nosuid", "ro"])], [("/a", ["noexec"])]),
        ([("/", ["ro", "noexec"]), ("/a", ["nosuid", "ro"]), ("/a", ["noexec"]), ("/b", [])], []),
    ],
    ids=["as before", "two flags gone", "in another order", "a mount is not there", "more forbidden, one more mount"],
)
def test_what_is_lost(now: mount_flags.Flags, expected: mount_flags.Flags) -> None:
    """Less forbidden is a loss, more is not."""
    before = [("/", ["ro"]), ("/a", ["nosuid", "ro"]), ("/a", ["noexec"])]
    assert mount_flags.lost(before, now) == expected
