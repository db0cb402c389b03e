#!/bin/bash
# CRIU's action script, on both hosts: notes when what happened, and makes the restored container reachable.
echo "$CRTOOLS_SCRIPT_ACTION ${EPOCHREALTIME/[.,]/}" >>/run/hand/marks
[ -n "${HAND_ADDRESS:-}" ] || exit 0 # the source
case $CRTOOLS_SCRIPT_ACTION in
network-unlock) # the sockets are whole: until here whoever reached this host would have been answered with RST
    ip link set vhand master migrate0
    nsenter --net="/proc/$CRTOOLS_INIT_PID/ns/net" \
        "$HAND_ROOT/bin/arping" -U -c 1 -I eth0 "$HAND_ADDRESS" </dev/null >/dev/null 2>&1 &
    ;;
post-resume)
    echo "$CRTOOLS_INIT_PID" >/run/hand/pid
    ;;
esac
exit 0
