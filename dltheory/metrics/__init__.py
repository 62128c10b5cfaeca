"""Metrics: how near samples of a model are to data, where the model has no likelihood."""

from dltheory.metrics.frechet import fid, frechet_distance

__all__ = ["fid", "frechet_distance"]
