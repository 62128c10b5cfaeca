"""Background: the inequalities, divergences and distributions that the rest of the sheet rests on."""

from dltheory.background.inequalities import hoeffding_bound

__all__ = ["hoeffding_bound"]
