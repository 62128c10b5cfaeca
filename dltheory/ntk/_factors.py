"""The factors of a network's Jacobian at one example, as arrays."""

from __future__ import annotations

import functools
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

__all__ = [
    "ByChannels",
    "ByPositions",
    "ByWeights",
    "FactorArrays",
    "Outputs",
    "Route",
    "Sizes",
    "factor_arrays",
    "factor_sizes",
]


class Route(NamedTuple):
    """Through what a factor is contracted: "positions", "weights" or "channels", and for these their bottleneck."""

    name: str
    bottleneck: int | None = None


class Outputs(NamedTuple):
    """How the outputs of one example enter the kernel: traced, diagonal, or in full.

    Attributes:
        order: flat indices of its entries, those traced slowest, those in full fastest.
        traced: number of entries summed over.
        diagonal: number of entries paired with themselves only.
        full: number of entries paired with one another.
    """

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


class ByPositions(NamedTuple):
    """Features and gradients as they are. At several examples every array has one more axis in front.

    Attributes:
        features: [blocks, positions, width] each.
        tokens: of embeddings, their tokens and weights, [blocks, positions] each.
        gradients: [traced, diagonal, full, blocks, positions, features].
    """

    features: tuple[Array, ...]
    tokens: tuple[tuple[Array, Array], ...]
    gradients: Array


class ByWeights(NamedTuple):
    """The Jacobians sum_t x_t (x) g_t of the parameters, [traced, diagonal, full, p] each."""

    jacobians: tuple[Array, ...]


class ByChannels(NamedTuple):
    """The same where g is a diagonal d times the gradient at a bottleneck.

    Attributes:
        jacobians: sum_t x_t (x) d_t of the parameters, [width, features] each.
        gradients: at the bottleneck, [traced, diagonal, full, features].
    """

    jacobians: tuple[Array, ...]
    gradients: Array


FactorArrays = ByPositions | ByWeights | ByChannels


def factor_sizes(program: Program, factors: Sequence[Factor]) -> list[Sizes]:
    """The sizes of factors."""
    shapes = program.stacked_shapes()

    def sizes(factor: Factor) -> Sizes:
        parts = [_site_sizes(site, shapes[site.number].shape) for site in factor.sites]
        width = sum(row[0].width for row in factor.rows)
        return Sizes(parts[0][0], sum(positions for _, positions, _ in parts), width, parts[0][2])

    return [sizes(factor) for factor in factors]


def factor_arrays(
    program: Program, outputs: Outputs, factors: Sequence[Factor], routes: Sequence[Route], inputs: Sequence[Array]
) -> list[FactorArrays]:
    """The factors of a network at one example: one forward pass, and one backward pass for all outputs at once.

    Args:
        program: the network, with one output array.
        outputs: how its entries enter the kernel.
        factors: of its Jacobian.
        routes: in which form they are wanted.
        inputs: arguments of the program, flattened.
    """
    shapes = program.stacked_shapes()
    bottlenecks = {route.bottleneck for route in routes if route.bottleneck is not None}
    numbers = {site.number for factor in factors for site in factor.sites} | bottlenecks
    sources = set().union(bottlenecks, *(factor.sources() for factor in factors))

    def shifted(shifts: dict[int, Array]) -> tuple[tuple[Array, dict[int, Array]], dict[int, Array]]:
        (output,), records = evaluate(program, inputs, shifts, sources)
        return (output, {number: records[number] for number in bottlenecks}), records

    zeros = {number: jnp.zeros(shapes[number].shape, shapes[number].dtype) for number in numbers}
    (output, narrow), pull, records = jax.vjp(shifted, zeros, has_aux=True)
    none = jax.tree.map(jnp.zeros_like, narrow)
    basis = jnp.eye(output.size, dtype=output.dtype)[outputs.order].reshape(output.size, *output.shape)
    (cotangents,) = jax.vmap(lambda row: pull((row, none)))(basis)
    diagonals = {
        number: pull((jnp.zeros_like(output), {**none, number: jnp.ones_like(narrow[number])}))[0]
        for number in bottlenecks
    }
    reader = _Reader(program, shapes, records, outputs)
    found: list[FactorArrays] = []
    for factor, route in zip(factors, routes, strict=True):
        if route.name == "positions":
            found.append(reader.by_positions(factor, cotangents))
        elif route.name == "weights":
            found.append(reader.by_weights(factor, cotangents))
        else:
            assert route.bottleneck is not None
            found.append(reader.by_channels(factor, cotangents[route.bottleneck], diagonals[route.bottleneck]))
    return found


class _Reader:
    """Reads factors off the values and cotangents of one evaluation."""

    def __init__(
        self,
        program: Program,
        shapes: Mapping[int, jax.ShapeDtypeStruct],
        records: Mapping[int, Array],
        outputs: Outputs,
    ) -> None:
        self.program, self.shapes, self.records = program, shapes, records
        self.kinds = (outputs.traced, outputs.diagonal, outputs.full)

    def by_positions(self, factor: Factor, cotangents: Mapping[int, Array]) -> ByPositions:
        gradients = self.gradients(factor, cotangents)
        tokens = [self.row(factor, row) for row in factor.rows if row[0].kind == "tokens"]
        features = [self.row(factor, row) for row in factor.rows if row[0].kind != "tokens"]
        return ByPositions(tuple(features), tuple(tokens), gradients.reshape(*self.kinds, *gradients.shape[1:]))

    def by_weights(self, factor: Factor, cotangents: Mapping[int, Array]) -> ByWeights:
        gradients = self.gradients(factor, cotangents)
        jacobians = [jnp.einsum("rbtf,btc->brfc", gradients, x) for x in self.dense_rows(factor)]
        rows = [jnp.moveaxis(jacobian, 1, 0) for jacobian in jacobians]
        return ByWeights(tuple(row.reshape(*self.kinds, -1) for row in rows))

    def by_channels(self, factor: Factor, gradient: Array, diagonal: Mapping[int, Array]) -> ByChannels:
        units = jax.tree.map(lambda leaf: leaf[None], dict(diagonal))
        (weights,) = self.gradients(factor, units)
        jacobians = [jnp.einsum("btc,btf->cf", x, weights) for x in self.dense_rows(factor)]
        return ByChannels(tuple(jacobians), gradient.reshape(*self.kinds, -1))

    def gradients(self, factor: Factor, cotangents: Mapping[int, Array]) -> Array:
        """Cotangents at the sites of a factor, [rows, blocks, positions, features]."""
        return jnp.concatenate([_gradients(site, cotangents[site.number]) for site in factor.sites], axis=2)

    def row(self, factor: Factor, row: Sequence[Feature]) -> Any:
        """The feature of one parameter at all sites of its factor."""
        dtype = self.shapes[factor.sites[0].number].dtype
        parts = [self.feature(site, feature) for site, feature in zip(factor.sites, row, strict=True)]
        if row[0].kind == "tokens":
            tokens, weights = (jnp.concatenate(part, axis=1) for part in zip(*parts, strict=True))
            return tokens, weights.astype(dtype)
        return jnp.concatenate([part.astype(dtype) for part in parts], axis=1)

    def dense_rows(self, factor: Factor) -> list[Array]:
        """The features of all parameters of a factor, tokens as indicators."""
        rows = [(row[0], self.row(factor, row)) for row in factor.rows]
        return [
            jax.nn.one_hot(value[0], feature.width, dtype=value[1].dtype) * value[1][:, :, None]
            if feature.kind == "tokens"
            else value
            for feature, value in rows
        ]

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
    *points, channels = image.shape
    taps = [filter_shape[axis] for axis in numbers.rhs_spec[2:]]
    # The points that the filter covers, found on the points' own numbers: one gather compiles far faster than slices.
    seen = np.arange(math.prod(points)).reshape(points)
    for axis, (tap, stride, dilation) in enumerate(
        zip(taps, settings["window_strides"], settings["rhs_dilation"], strict=True), start=1
    ):
        starts = np.arange(0, seen.shape[axis] - (tap - 1) * dilation, stride)
        seen = np.moveaxis(seen.take(starts[:, None] + dilation * np.arange(tap)[None, :], axis), axis + 1, -1)
    out_axes = [numbers.out_spec[0], *numbers.out_spec[2:]]  # positions in the order in which the output has them
    seen = seen.transpose(*np.argsort(out_axes), *range(len(out_axes), seen.ndim)).reshape(-1, math.prod(taps))
    patches = image.reshape(-1, channels).at[seen].get(mode="promise_in_bounds")  # [positions, taps, channels]
    patches = jnp.moveaxis(patches.reshape(*seen.shape, groups, channels // groups), 2, 0)
    return patches.reshape(groups, seen.shape[0], -1)
