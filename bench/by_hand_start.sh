#!/bin/bash
# by_hand_start.sh ROOT CMD...: init of a container made by hand, run as root of its user namespace and already in all of
# its namespaces. Waits for a line on stdin: by then its network is there.
set -e
root=$1; shift
# A mount that came from the host is locked in here and cannot become the root: a bind of it can.
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
cd "$root"
read -r _
pivot_root . old
cd /
umount -l /old
# CRIU refuses a task whose session leader it cannot see.
exec setsid "$@" </dev/null >/dev/null 2>&1
