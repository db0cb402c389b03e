#!/bin/bash
# Move a process with plain CRIU, as one would by hand, on the host that it runs on:
#
#   by_hand_move.sh CRIU PID ROOT TARGET_ROOT ADDRESS [FILES]
#
# dump, copy, restore; images on tmpfs, the copy through an ssh connection that is open already. /run/hand is on both hosts.
# FILES: a directory of the root that goes along.
set -euo pipefail
criu=$1 pid=$2 root=$3 target_root=$4 address=$5 files=${6:-}
options=(--no-default-config --images-dir /run/hand/images --log-file /run/hand/criu.log -v1 --tcp-established
         --network-lock nftables --manage-cgroups=ignore --action-script "$(dirname "$0")/by_hand_action.sh")
"$criu" dump --tree "$pid" --root "$root" "${options[@]}"
[ -z "$files" ] || tar --create --sparse --directory "$root" "$files" | ssh -F /run/hand/ssh_config target \
    "tar --extract --directory $target_root"
tar --create --directory /run/hand/images . | ssh -F /run/hand/ssh_config target "
    tar --extract --directory /run/hand/images &&
    HAND_ADDRESS=$address HAND_ROOT=$target_root $criu restore --restore-detached --root $target_root \
        --external 'netdev[eth0]:phand' ${options[*]}"
