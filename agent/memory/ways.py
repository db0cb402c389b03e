"""The ways to see writes, by name, for who chooses one without loading them: the agent does not need numpy."""

SHADOW = "shadow"
CAPABILITIES = {
    "userfaultfd": "userfaultfd-wp",
    "soft-dirty": "soft-dirty",
}  # way: name of agent.setup.probe; the best first
AUTO = "auto"  # the best that the kernel has
NAMES = (AUTO, *CAPABILITIES, SHADOW)
