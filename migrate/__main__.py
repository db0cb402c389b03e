"""`python -m migrate`: the same as the command `migrate`."""

import sys

from migrate.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
