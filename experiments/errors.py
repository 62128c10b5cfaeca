"""What the command line answers with one line and exit status 2."""

__all__ = ["UsageError"]


class UsageError(Exception):
    """The user asked for something that cannot be done; the message says what and why, in one line."""
