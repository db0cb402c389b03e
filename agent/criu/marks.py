"""What is to outlive a monitor on the target: empty files beside the images of the move. Standard library only."""

FILLED = "filled"  # by the process that fills memory: every page is in its task
THAWED = "thawed"  # by whoever lets the tasks run, just before: from here on this copy may have run
