"""What is said by a form that cannot be had."""


class Kept(Exception):
    """This module stays as it is; the message says why."""
