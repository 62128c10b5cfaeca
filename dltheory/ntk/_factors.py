"""The factors of a network's Jacobian at one example, as arrays."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dltheory._programs import Constant, Program, evaluate
from dltheory.ntk._sites import Factor, Feature, Scale, Site
from dltheory.typing import Array

__all__ = ["FactorArrays", "Outputs", "Sizes", "factor_arrays", "factor_sizes"]


class Outputs(NamedTuple):
    """How the outputs of one example enter the kernel: traced, diagonal, or in full.

    Attributes:
        shape: of the output of one example.
        order: flat indices of its entries, those traced slowest, those in full fastest.
        traced: number of entries summed over.
        diagonal: number of entries paired with themselves only.
        full: number of entries paired with one another.
    """

    shape: tuple[int, ...]
    order: np.ndarray
    traced: int
    diagonal: int
    full: int


class Sizes(NamedTuple):
    """What a factor measures: blocks of the parameter, positions that share it, inputs and outputs at a position."""

    blocks: int
    positions: int
    width: int
    features: int


class FactorArrays(NamedTuple):
    """A factor at one example; at many, with one more axis in front.

    Attributes:
        features: [blocks, positions, width]; None where `gradients` is the Jacobian, or all features are tokens.
        tokens: for each embedding its tokens and their weights, [blocks, positions] each.
        gradients: [traced, diagonal, full, blocks, positions, features]; as a Jacobian [traced, diagonal, full, p].
    """

    features: Array | None
    tokens: tuple[tuple[Array, Array], ...]
    gradients: Array


def factor_sizes(program: Program, factor: Factor) -> Sizes:
    """The sizes of a factor."""
    shapes = program.stacked_shapes()
    parts = [_site_sizes(site, shapes[site.number].shape) for site in factor.sites]
    width = sum(row[0].width for row in factor.rows)
    return Sizes(parts[0][0], sum(positions for _, positions, _ in parts), width, parts[0][2])


def factor_arrays(
    program: Program,
    outputs: Outputs,
    factors: Sequence[Factor],
    as_jacobian: Sequence[bool],
    inputs: Sequence[Array],
) -> list[FactorArrays]:
    """The factors of a network at one example: one forward pass, and one backward pass for all outputs at once.

    Args:
        program: the network, with one output array.
        outputs: how its entries enter the kernel.
        factors: of its Jacobian.
        as_jacobian: which of them to multiply out.
        inputs: arguments of the program, flattened.
    """
    shapes = program.stacked_shapes()
    numbers = {site.number for factor in factors for site in factor.sites}
    sources = set().union(*(factor.sources() for factor in factors))

    def shifted(shifts: dict[int, Array]) -> tuple[Array, dict[int, Array]]:
        (output,), records = evaluate(program, inputs, shifts, sources)
        return output, records

    zeros = {number: jnp.zeros(shapes[number].shape, shapes[number].dtype) for number in numbers}
    output, pull, records = jax.vjp(shifted, zeros, has_aux=True)
    basis = jnp.eye(output.size, dtype=output.dtype)[outputs.order].reshape(output.size, *output.shape)
    (cotangents,) = jax.vmap(pull)(basis)
    reader = _Reader(program, shapes, records)
    return [
        reader.arrays(factor, cotangents, outputs, multiplied)
        for factor, multiplied in zip(factors, as_jacobian, strict=True)
    ]


class _Reader:
    """Reads factors off the values and cotangents of one evaluation."""

    def __init__(self, program: Program, shapes: Mapping[int, jax.ShapeDtypeStruct], records: Mapping[int, Array]):
        self.program, self.shapes, self.records = program, shapes, records

    def arrays(
        self, factor: Factor, cotangents: Mapping[int, Array], outputs: Outputs, multiplied: bool
    ) -> FactorArrays:
        gradients = jnp.concatenate([_gradients(site, cotangents[site.number]) for site in factor.sites], axis=2)
        kinds = (outputs.traced, outputs.diagonal, outputs.full)
        dense, tokens = [], []
        for row in factor.rows:
            parts = [self.feature(site, feature) for site, feature in zip(factor.sites, row, strict=True)]
            if row[0].kind != "tokens":
                dense.append(jnp.concatenate([part.astype(gradients.dtype) for part in parts], axis=1))
                continue
            indices, weights = (jnp.concatenate(part, axis=1) for part in zip(*parts, strict=True))
            weights = weights.astype(gradients.dtype)
            if multiplied:
                dense.append(jax.nn.one_hot(indices, row[0].width, dtype=weights.dtype) * weights[:, :, None])
            else:
                tokens.append((indices, weights))
        features = jnp.concatenate(dense, axis=2) if dense else None
        if not multiplied:
            return FactorArrays(features, tuple(tokens), gradients.reshape(*kinds, *gradients.shape[1:]))
        assert features is not None
        jacobian = jnp.einsum("btc,rbtf->rbcf", features, gradients)
        return FactorArrays(None, (), jacobian.reshape(*kinds, -1))

    def feature(self, site: Site, feature: Feature) -> Any:
        """[blocks, positions, width] at one site; of an embedding its tokens and weights, [blocks, positions] each."""
        blocks, positions, _ = _site_sizes(site, self.shapes[site.number].shape)
        if feature.source is None:
            return self.weights(site, feature)[:, :, None]
        value = self.records[feature.source]
        depth = value.ndim - len(self.program.shape(feature.source))
        steps = [axis for axis in range(depth) if axis not in feature.stacked]
        if feature.kind == "tokens":
            ordered = value.transpose(*feature.stacked, *steps, *range(depth, value.ndim)).reshape(blocks, positions)
            tokens, valid = _looked_up(ordered, feature)
            return tokens, jnp.where(valid, self.weights(site, feature), 0)
        scale = self.scale(feature.scales, depth)
        value = value * scale.reshape(*scale.shape, *[1] * (value.ndim - depth)).astype(value.dtype)
        if feature.kind == "patches":
            settings, filter_shape = feature.settings
            flat = value.reshape(-1, *value.shape[depth:])
            patches = jax.vmap(lambda image: _patches(image, settings, filter_shape))(flat)
            patches = patches.reshape(*value.shape[:depth], *patches.shape[1:])  # [steps, groups, positions, width]
            ordered = patches.transpose(*feature.stacked, depth, *steps, depth + 1, depth + 2)
        else:
            axes = [depth + axis for axis in feature.axes]
            ordered = value.transpose(*feature.stacked, *axes[: feature.blocks], *steps, *axes[feature.blocks :])
        return ordered.reshape(blocks, positions, feature.width)

    def weights(self, site: Site, feature: Feature) -> Array:
        """The scalars of a feature at every block and position of its site, [blocks, positions]."""
        shape = self.shapes[site.number].shape
        depth = len(shape) - len(self.program.shape(site.number))
        blocks, positions, _ = _site_sizes(site, shape)
        steps = [axis for axis in range(depth) if axis not in feature.stacked]
        scale = jnp.broadcast_to(self.scale(feature.scales, depth), shape[:depth]).transpose(*feature.stacked, *steps)
        outer = math.prod(shape[axis] for axis in feature.stacked)
        scale = scale.reshape(outer, 1, -1, 1)
        return jnp.broadcast_to(
            scale, (outer, blocks // outer, scale.shape[2], positions // scale.shape[2])
        ).reshape(blocks, positions)

    def scale(self, scales: Sequence[Scale], depth: int) -> Array:
        """Product of scalars, each inside some of `depth` scans, broadcastable to their steps."""
        factors = []
        for scale in scales:
            if isinstance(scale.value, Constant):
                value = jnp.reshape(scale.value.value, [1] * depth)
            else:
                value = self.records[scale.value]
                inside = value.ndim - len(self.program.shape(scale.value))
                value = value.reshape(*value.shape[:inside], *[1] * (depth - inside))
            factors.append(value if scale.power == 1 else 1 / value)
        return functools.reduce(operator.mul, factors, jnp.ones([1] * depth))


def _site_sizes(site: Site, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Blocks, positions and features of a site."""
    blocks, shared, features = (
        math.prod(shape[axis] for axis in axes) for axes in (site.blocks, site.shared, site.features)
    )
    return blocks * site.groups, shared, features // site.groups


def _gradients(site: Site, cotangent: Array) -> Array:
    """Cotangents [rows, ...] at a site as [rows, blocks, positions, features]."""
    rows = cotangent.shape[0]
    axes = (*site.blocks, *site.shared, *site.features)
    units = [axis for axis in range(cotangent.ndim - 1) if axis not in axes]
    blocks, positions, features = _site_sizes(site, cotangent.shape[1:])
    ordered = cotangent.transpose(0, *(1 + axis for axis in (*units, *axes)))
    split = ordered.reshape(rows, blocks // site.groups, positions, site.groups, features)
    return jnp.moveaxis(split, 3, 2).reshape(rows, blocks, positions, features)


def _looked_up(indices: Array, feature: Feature) -> tuple[Array, Array]:
    """Rows of the table that indices outside it stand for, and whether they stand for any."""
    inside = (indices >= 0) & (indices < feature.width)
    if feature.settings == jax.lax.GatherScatterMode.CLIP:
        return jnp.clip(indices, 0, feature.width - 1), jnp.ones_like(inside)
    return indices, inside


def _patches(image: Array, settings: Mapping[str, Any], filter_shape: tuple[int, ...]) -> Array:
    """What the filter of a convolution sees at every position, [groups, positions, taps * channels / groups]."""
    numbers, groups = settings["dimension_numbers"], settings["feature_group_count"]
    batch, channel, *space = numbers.lhs_spec
    margins = zip(settings["padding"], settings["lhs_dilation"], strict=True)
    pads = [(low, high, dilation - 1) for (low, high), dilation in margins]
    zero = jnp.zeros((), image.dtype)
    image = jax.lax.pad(image.transpose(batch, *space, channel), zero, [(0, 0, 0), *pads, (0, 0, 0)])
    taps = [filter_shape[axis] for axis in numbers.rhs_spec[2:]]
    strides, dilations = settings["window_strides"], settings["rhs_dilation"]
    sizes = [
        (length - (tap - 1) * dilation - 1) // stride + 1
        for length, tap, dilation, stride in zip(image.shape[1:-1], taps, dilations, strides, strict=True)
    ]

    def seen(offsets: tuple[int, ...]) -> Array:
        starts = [offset * dilation for offset, dilation in zip(offsets, dilations, strict=True)]
        stops = [at + (size - 1) * stride + 1 for at, size, stride in zip(starts, sizes, strides, strict=True)]
        lows, highs = [0, *starts, 0], [image.shape[0], *stops, image.shape[-1]]
        return jax.lax.slice(image, lows, highs, [1, *strides, 1])

    patches = jnp.stack([seen(offsets) for offsets in itertools.product(*map(range, taps))], axis=-2)
    out_axes = [numbers.out_spec[0], *numbers.out_spec[2:]]  # positions in the order in which the output has them
    patches = patches.transpose(*np.argsort(out_axes), patches.ndim - 2, patches.ndim - 1)
    patches = patches.reshape(-1, math.prod(taps), groups, image.shape[-1] // groups)
    return jnp.moveaxis(patches, 2, 0).reshape(groups, patches.shape[0], -1)
