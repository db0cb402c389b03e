"""`python -m bench`: see bench/downtime.py."""

import sys

from bench.downtime import main

if __name__ == "__main__":
    sys.exit(main())
