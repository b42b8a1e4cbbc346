"""`python -m vitrail.cli`: entry point for launchers that take a module, such as torchrun."""

from vitrail.__main__ import command

if __name__ == "__main__":
    command()
