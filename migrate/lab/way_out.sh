#!/bin/sh
# A host's way out of the lab, for builds: packages come from where this machine itself gets them. A child of the host's supervisor,
# in its namespaces. slirp4netns forwards what comes through tap0 with sockets of the machine's own network namespace, so the lab
# needs no address there, and nothing outside can come in. $1: the host's segment, whose containers may use it: those that
# get the host as their gateway, which the containers of builds do and no others.
set -e
echo 1 > /proc/sys/net/ipv4/ip_forward
nft -f - <<END
table ip lab_way_out
delete table ip lab_way_out
table ip lab_way_out {
    chain postrouting {
        type nat hook postrouting priority srcnat
        ip saddr $1 oifname tap0 masquerade
    }
}
END
exec nsenter "--net=/proc/self/fd/$OUTSIDE" slirp4netns --configure --mtu=1500 --disable-host-loopback --netns-type=path "/proc/$PPID/ns/net" tap0
