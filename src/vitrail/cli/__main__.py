"""`python -m vitrail.cli`: entry point for launchers that take a module, such as torchrun."""

import sys

from vitrail.cli import main

if __name__ == "__main__":
    sys.exit(main())
