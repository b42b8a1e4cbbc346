"""`python -m vitrail.cli`: the command where only a module can be named, as under torchrun."""

import sys

from vitrail.cli import main

if __name__ == "__main__":
    sys.exit(main())
