"""`python -m vitrail`: the same as the command `vitrail`."""

from typing import NoReturn

from vitrail.cli import main
from vitrail.cli.fast_exit import run_and_exit


def command() -> NoReturn:
    """Run the command line of this process."""
    run_and_exit(main)


if __name__ == "__main__":
    command()
