"""Infinitely wide networks: their kernels read off the network itself."""

from dltheory.infinite_width.kernel import InfiniteWidthKernelFn, Kernel, kernel_fn
from dltheory.infinite_width.monte_carlo import MonteCarloKernel, monte_carlo_kernel

__all__ = ["InfiniteWidthKernelFn", "Kernel", "MonteCarloKernel", "kernel_fn", "monte_carlo_kernel"]
