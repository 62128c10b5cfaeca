"""What cannot be computed, and where in the user's program."""

from __future__ import annotations

__all__ = ["UnsupportedError"]


class UnsupportedError(NotImplementedError):
    """A network has no infinite-width limit of the kind computed here, or there is no rule for one of its operations.

    Attributes:
        located: whether the message says where.
    """

    located = False

    def at(self, where: str) -> UnsupportedError:
        """The same with the place in its message, if it has none yet."""
        if self.located or not where:
            return self
        error = UnsupportedError(
            f"{where}: {self}. `infinite_width.monte_carlo_kernel` estimates the kernel of any network"
        )
        error.located = True
        return error
