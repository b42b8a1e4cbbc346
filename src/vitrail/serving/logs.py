"""Log of the server: one JSON object a line, without payloads."""

import logging
import sys
import time

_NAMES = ("vitrail.serving", "uvicorn.error")
_SILENT = ("python_multipart",)


def log_to_stderr(quiet: bool = False) -> None:
    """Write the log of this process's server to standard error; only the command does so, the library adds no handler.

    Args:
        quiet: leave out lines of single requests and of normal events.
    """
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    for name in _SILENT:  # their messages quote the payload
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).propagate = False
    for name in _NAMES:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(logging.WARNING if quiet or name.startswith("uvicorn") else logging.INFO)
