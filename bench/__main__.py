"""`python -m bench`: see bench/move.py."""

import sys

from bench.move import main

if __name__ == "__main__":
    sys.exit(main())
