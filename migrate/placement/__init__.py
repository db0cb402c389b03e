"""Where containers go: data in, rankings and plans out. Knows nothing of stores, agents or moves. docs/fleet.md

model      what is known of hosts, and what a container needs
labels     constraints on a host's labels, affinity to labels of containers
filters    why a host cannot take a container
scores     how well one that can would take it
ranking    all hosts for one container
packing    many containers at once: what goes where, and what does not fit
schedule   in which order, and how long that takes
"""
