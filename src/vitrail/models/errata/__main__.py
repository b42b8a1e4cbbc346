"""Print the page of errata: `python -m vitrail.models.errata > docs/errata.md`."""

import sys

from vitrail.models.errata import to_markdown

if __name__ == "__main__":
    sys.stdout.write(to_markdown())
