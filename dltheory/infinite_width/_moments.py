"""Covariances and tangent kernels of nodes and features, for pairs of inputs.

Evaluation goes from the output down and asks below only for what it needs: pairs of positions where positions are
summed, else each position with itself. Everything is computed once.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import nngp
from dltheory._numerics import safe_sqrt
from dltheory.infinite_width._elementwise import Elementwise
from dltheory.infinite_width._errors import UnsupportedError
from dltheory.infinite_width._functions import elementwise
from dltheory.infinite_width._gaussians import (
    Atom,
    Bias,
    Feature,
    Mask,
    Moved,
    Node,
    Product,
    Scaled,
    Shifted,
    Source,
    Sum,
    Term,
    Wrapped,
    is_mask,
    node_feature,
)
from dltheory.infinite_width._known import Known
from dltheory.infinite_width._pairs import mean, second_moment
from dltheory.infinite_width._plane import plane_mean, plane_second_moment
from dltheory.infinite_width._positions import Index, Windows
from dltheory.nngp import PairCovariance, half_squared_distance
from dltheory.nngp._angles import as_correlation, safe_ratio
from dltheory.nngp.covariances import affine_moments
from dltheory.typing import Array

__all__ = ["Block", "Moments", "Pairing"]

_DIRECT = 64  # inputs of so few dimensions are compared entry by entry


class Pairing(NamedTuple):
    """Which pairs of examples a block is about.

    Attributes:
        left, right: the sets of inputs, 0 or 1.
        outer: every example of one with every example of the other, arrays [n, m, ...]; or else each example of one set
            with itself, [n, ...].
        tangent: whether the tangent kernel is wanted.
    """

    left: int
    right: int
    outer: bool
    tangent: bool = False

    @property
    def lead(self) -> int:
        """Number of axes of examples."""
        return 2 if self.outer else 1

    @property
    def own(self) -> bool:
        """Whether it pairs each example with itself."""
        return not self.outer

    def on_left(self, array: Array) -> Array:
        """An array [n, ...] of the left examples, as it broadcasts against a block."""
        return array[:, None] if self.outer else array

    def on_right(self, array: Array) -> Array:
        """An array [m, ...] of the right examples, as it broadcasts against a block."""
        return array[None, :] if self.outer else array


class Block(NamedTuple):
    """Second moments of two quantities over pairs of examples [...] and positions [*positions(, *positions)].

    Attributes:
        covariance: the second moments.
        residual: 1 - rho^2 if it is known better than from the covariance.
        ntk: the tangent kernel, None for 0.
    """

    covariance: Array
    residual: Array | None = None
    ntk: Array | None = None


class Moments:
    """Evaluates nodes and features.

    Attributes:
        sizes: numbers of examples of the sets of inputs.
        dtype: of the results.
        coincident: [n, m], which inputs of the two sets are the same ones; None if none is known to be.
    """

    def __init__(self, sizes: tuple[int, ...], dtype: Any, coincident: Array | None = None) -> None:
        self.sizes = sizes
        self.coincident = coincident
        self.dtype = dtype
        self._memory: dict[tuple, tuple[Any, Any]] = {}

    def _once(self, key: tuple, keep: Any, compute: Any) -> Any:
        if key not in self._memory:
            self._memory[key] = (keep, compute())  # what the identities in the key belong to is kept alive
        return self._memory[key][1]

    def _number(self, value: Any) -> Array:
        return jnp.asarray(value, self.dtype)

    def per_example(self, known: Known, s: int, positions: tuple[int, ...]) -> Array:
        """A known value at every position of every example, [n, *positions]."""
        array = jnp.asarray(known.side(s), self.dtype)
        array = array if known.batched else array[None]
        return jnp.broadcast_to(array, (self.sizes[s], *positions))

    # One quantity

    def variance(self, node: Node, s: int) -> Array:
        """Second moment [n, *positions] of a node with itself."""
        return self._once((id(node), s), node, lambda: self._variance(node, s))

    def _variance(self, node: Node, s: int) -> Array:
        own = Pairing(s, s, False)
        if isinstance(node, Product):
            if isinstance(node.source, Source):
                below = self._row_squares(node.source, s)
            else:
                try:
                    below = self.feature_variance(node.source, s)
                except UnsupportedError as error:
                    raise error.at(node.where) from None
            return self._number(node.scale**2 * node.variance) * node.windows(below, 1, full=False)
        if isinstance(node, Bias):
            return jnp.broadcast_to(self._number(node.scale**2 * node.variance), (self.sizes[s], *node.positions))
        if isinstance(node, Mask):
            return self._node_mean(node, s)
        if isinstance(node, Scaled):
            return self.variance(node.node, s) * self.per_example(node.factor, s, node.positions) ** 2
        if isinstance(node, Shifted):
            return self.variance(node.node, s)
        if isinstance(node, Moved):
            if isinstance(node.move, Index):
                return node.move(self.variance(node.node, s), 1)
            return _present(self._covariance(node, node, own, full=False)).covariance
        if isinstance(node, Wrapped):
            return self.feature_variance(node.feature, s)
        assert isinstance(node, Sum)
        total = sum(self.variance(part, s) for part in node.parts)
        for i, a in enumerate(node.parts):
            for b in node.parts[:i]:
                cross = self.block(a, b, own, full=False)
                total = total if cross is None else total + 2 * cross.covariance
        return total  # pyright: ignore[reportReturnType]

    def feature_variance(self, feature: Feature, s: int) -> Array:
        """Second moment [n, *positions] of a feature with itself."""
        own = Pairing(s, s, False)
        return self._once(
            (id(feature), s), feature, lambda: _present(self.feature_block(feature, feature, own, False)).covariance
        )

    def mean(self, feature: Feature, s: int) -> Array:
        """Mean over the channels, [n, *positions]."""
        means = [mean for term in feature.terms if (mean := self._term_mean(term, s, feature.positions)) is not None]
        return sum(means, start=jnp.zeros((self.sizes[s], *feature.positions), self.dtype))

    def _term_mean(self, term: Term, s: int, positions: tuple[int, ...]) -> Array | None:
        product = self.per_example(term.factor, s, positions)
        for atom in term.atoms:
            mean = self._atom_mean(atom, s)
            if mean is None:
                return None
            product = product * mean
        return product

    def _atom_mean(self, atom: Atom, s: int) -> Array | None:
        """Mean of a function, None for 0."""
        return self._once((id(atom), "mean", s), atom, lambda: self._compute_mean(atom, s))

    def _compute_mean(self, atom: Atom, s: int) -> Array | None:
        node = atom.nodes[0]
        if atom.fn is None:
            return None if node.centred else self._node_mean(node, s)
        if is_mask(node):
            start, step = _on_mask(atom)
            return start + step * self._node_mean(node, s)
        positions = node.positions
        params = [self.per_example(p, s, positions) for p in atom.params]
        if len(atom.nodes) == 2:
            first, second = (self.variance(n, s) for n in atom.nodes)
            return plane_mean(_on_plane(atom, atom.nodes), first, second, params)
        return mean(atom.function, self.variance(node, s), params)

    def _node_mean(self, node: Node, s: int) -> Array:
        if isinstance(node, Wrapped):
            return self.mean(node.feature, s)
        if isinstance(node, Mask):
            return jnp.full((self.sizes[s], *node.positions), node.rate, self.dtype)
        if isinstance(node, Moved):
            known = None if isinstance(node.move, Index) else node.move.known
            mean = self._node_mean(node.node, s)
            return node.move(mean, 1, None if known is None else self._known_rows(known, s))
        if isinstance(node, Scaled):
            return self._node_mean(node.node, s) * self.per_example(node.factor, s, node.positions)
        if isinstance(node, Shifted):
            return self._node_mean(node.node, s)
        assert isinstance(node, Sum)
        return sum(self._node_mean(part, s) for part in node.parts if not part.centred)  # pyright: ignore[reportReturnType]

    def _known_rows(self, known: Known, s: int, dtype: Any = None) -> Array:
        array = jnp.asarray(known.side(s), dtype or self.dtype)
        return array if known.batched else jnp.broadcast_to(array[None], (self.sizes[s], *array.shape))

    def _rows(self, source: Source, s: int) -> Array:
        return self._known_rows(source.rows, s, jnp.int32 if source.labels else None)

    def _row_squares(self, source: Source, s: int) -> Array:
        rows = self._rows(source, s)
        return jnp.ones(rows.shape[:-1], self.dtype) if source.labels else jnp.sum(rows**2, axis=-1)

    # Two nodes

    def pairs(self, a: Node, b: Node, pairing: Pairing, full: bool, block: Block) -> PairCovariance:
        """A block of nodes with its variances."""
        found = self._assemble(self.variance(a, pairing.left), self.variance(b, pairing.right), pairing, full, block)
        return self._coincide(found, a.positions, full) if a is b and pairing.outer else found

    def _coincide(self, pairs: PairCovariance, positions: tuple[int, ...], full: bool) -> PairCovariance:
        """Pairs of a node with itself, exact where the inputs are the same."""
        if self.coincident is None:
            return pairs
        same = _equal_places(self.coincident, positions, full)
        return pairs._replace(
            covariance=jnp.where(same, pairs.variance1, pairs.covariance), residual=jnp.where(same, 0.0, pairs.residual)
        )

    def _assemble(self, first: Array, second: Array, pairing: Pairing, full: bool, block: Block) -> PairCovariance:
        first, second = _aligned(first, second, pairing, full)
        if block.residual is not None:
            return PairCovariance(first, second, block.covariance, block.residual)
        return nngp.pair_covariance(first, second, block.covariance)

    def block(self, a: Node, b: Node, pairing: Pairing, full: bool) -> Block | None:
        """Second moments of two nodes; None if they are uncorrelated and one has mean 0."""
        full = full and bool(a.positions or b.positions)
        if not a.leaves & b.leaves:
            if a.centred or b.centred:
                return None
            return Block(
                self._outer(self._node_mean(a, pairing.left), self._node_mean(b, pairing.right), pairing, full)
            )
        key = (id(a), id(b), pairing, full)
        return self._once(key, (a, b), lambda: self._covariance(a, b, pairing, full))

    def _outer(self, first: Array, second: Array, pairing: Pairing, full: bool) -> Array:
        first, second = _aligned(first, second, pairing, full)
        return first * second

    def _covariance(self, a: Node, b: Node, pairing: Pairing, full: bool) -> Block | None:
        if pairing.own and not full and a is b and not (isinstance(a, Moved) and not isinstance(a.move, Index)):
            return Block(self.variance(a, pairing.left))
        if a is b and pairing.outer:
            layers = _chain(a)
            if len(layers) >= _CHAIN:
                return self._follow(a, layers, pairing, full)
        if isinstance(a, Sum) or isinstance(b, Sum):
            return self._sum(a, b, pairing, full)
        if isinstance(a, Scaled):
            block = self.block(a.node, b, pairing, full)
            return self._scale(block, a, pairing, full, left=True)
        if isinstance(b, Scaled):
            block = self.block(a, b.node, pairing, full)
            return self._scale(block, b, pairing, full, left=False)
        if isinstance(a, Moved) or isinstance(b, Moved):
            return self._move(a, b, pairing, full)
        if isinstance(a, Shifted) or isinstance(b, Shifted):
            if isinstance(a, Shifted) and isinstance(b, Shifted) and a.offset == b.offset:
                return self.block(a.node, b.node, pairing, full)
            return None
        if isinstance(a, Wrapped) or isinstance(b, Wrapped):
            first, second = (n.feature if isinstance(n, Wrapped) else node_feature(n) for n in (a, b))
            return self.feature_block(first, second, pairing, full)
        if _is_fresh(a, b) or _is_fresh(b, a):
            return None
        if isinstance(a, Product) and isinstance(b, Product) and a.leaf == b.leaf:
            try:
                return self._product(a, b, pairing, full)
            except UnsupportedError as error:
                raise error.at(b.where) from None
        if isinstance(a, Bias) and isinstance(b, Bias):
            value = self._number(a.scale * b.scale * a.variance)
            if full:
                size = int(np.prod(a.positions))
                value = value * jnp.eye(size, dtype=self.dtype).reshape(*a.positions, *b.positions)
            else:
                value = jnp.broadcast_to(value, a.positions)
            value = value.reshape((1,) * pairing.lead + value.shape)
            return Block(value, jnp.zeros_like(value), value if pairing.tangent else None)
        if isinstance(a, Mask) and a is b:
            nowhere = jnp.zeros((1, 1), bool)
            examples = jnp.ones(1, bool) if pairing.own else nowhere if self.coincident is None else self.coincident
            value = jnp.where(_equal_places(examples, a.positions, full), a.rate, a.rate**2).astype(self.dtype)
            shape = (*examples.shape, *a.positions, *(a.positions if full else ()))
            return Block(jnp.broadcast_to(value, shape))
        raise UnsupportedError(_TWO_WAYS)

    def _scale(self, block: Block | None, node: Scaled, pairing: Pairing, full: bool, *, left: bool) -> Block | None:
        if block is None:
            return None
        side = pairing.left if left else pairing.right
        factor = self.per_example(node.factor, side, node.positions)
        factor = pairing.on_left(factor) if left else pairing.on_right(factor)
        if full:
            k = len(node.positions)
            shape = (*node.positions, *(1,) * k) if left else (*(1,) * k, *node.positions)
            factor = factor.reshape(*factor.shape[: pairing.lead], *shape)
        ntk = None if block.ntk is None else block.ntk * factor
        return Block(block.covariance * factor, block.residual, ntk)

    def _move(self, a: Node, b: Node, pairing: Pairing, full: bool) -> Block | None:
        first, second = (n.node if isinstance(n, Moved) else n for n in (a, b))
        on_left = a.move if isinstance(a, Moved) else None
        on_right = b.move if isinstance(b, Moved) else None
        if not full and isinstance(on_left, Index) and isinstance(on_right, Index) and _alike(on_left, on_right):
            block = self.block(first, second, pairing, full=False)
            return (
                None if block is None else _map(block, lambda array: on_left(array, pairing.lead), on_left.is_complete)
            )
        block = self.block(first, second, pairing, full=True)
        if block is None:
            return None
        copies = all(move is None or (isinstance(move, Index) and move.is_complete) for move in (on_left, on_right))

        def move(array: Array) -> Array:
            array = _broadcast_examples(array, pairing, self.sizes)
            if on_left is not None:
                known = None if isinstance(on_left, Index) or on_left.known is None else on_left.known
                rows = None if known is None else pairing.on_left(self._known_rows(known, pairing.left))
                array = on_left(array, pairing.lead, rows)
            if on_right is not None:
                known = None if isinstance(on_right, Index) or on_right.known is None else on_right.known
                rows = None if known is None else pairing.on_right(self._known_rows(known, pairing.right))
                array = on_right(array, pairing.lead + len(a.positions), rows)
            return array if full else _diagonal(array, pairing.lead, len(a.positions))

        return _map(block, move, copies)

    def _product(self, a: Product, b: Product, pairing: Pairing, full: bool) -> Block | None:
        if a.windows.axes != b.windows.axes or isinstance(a.source, Source) != isinstance(b.source, Source):
            raise UnsupportedError(_TWO_WAYS)
        wide = full and len(a.positions) > 0
        if isinstance(a.source, Source):
            assert isinstance(b.source, Source)
            below, distance = self._inputs(a.source, b.source, pairing, wide)
            first, second = self._row_squares(a.source, pairing.left), self._row_squares(b.source, pairing.right)
        else:
            assert isinstance(b.source, Feature)
            below, distance = self.feature_block(a.source, b.source, pairing, wide), None
            if below is None:
                return None
            first = self.feature_variance(a.source, pairing.left)
            second = self.feature_variance(b.source, pairing.right)
        factor = self._number(a.scale * b.scale * a.variance)
        covariance = factor * a.windows(below.covariance, pairing.lead, wide)
        ntk = None
        if pairing.tangent:
            ntk = below.covariance if below.ntk is None else below.covariance + below.ntk
            ntk = factor * a.windows(ntk, pairing.lead, wide)
        if a.windows.is_trivial:
            return Block(covariance, below.residual, ntk)
        if a is not b and a.source is not b.source:
            return Block(covariance, None, ntk)
        pairs = self._assemble(first, second, pairing, wide, below)
        if distance is None:
            distance = half_squared_distance(pairs)
        distance = a.windows.distances(distance, pairs.variance1, pairs.variance2, pairing.lead, wide)
        distance = factor * distance
        residual = self._residual(a, b, pairing, wide, covariance, distance)
        return Block(covariance, residual, ntk)

    def _follow(self, top: Node, layers: list[_Layer], pairing: Pairing, full: bool) -> Block | None:
        """Equal layers one after the other, as one loop: compiling does not grow with depth."""
        base, windows, dual = layers[0].below, layers[0].windows, layers[0].dual
        wide = full and bool(base.positions)
        block = self.block(base, base, pairing, wide)
        if block is None:
            return None
        sides = pairing.left, pairing.right
        shape = (*(self.sizes[s] for s in sides), *base.positions, *(base.positions if wide else ()))
        start = self.pairs(base, base, pairing, wide, block)
        ntk = jnp.zeros(()) if block.ntk is None else block.ntk
        whole = tuple(jnp.broadcast_to(x, shape).astype(self.dtype) for x in (start.covariance, start.residual, ntk))
        variances = tuple(self.variance(base, s) for s in sides)
        numbers = [
            jnp.stack([self._number(x) for x in column])
            for column in zip(*(layer.numbers for layer in layers), strict=True)
        ]

        def step(carry: Any, scales: Any) -> tuple[Any, None]:
            (first, second), (covariance, residual, ntk) = carry
            weight, bias = scales
            pairs = self._assemble(first, second, pairing, wide, Block(covariance, residual))
            pairs = self._coincide(pairs, base.positions, wide)
            image = dual.kernel(pairs)
            slope = dual.derivative(pairs)
            ntk = weight * windows(image.covariance + slope * ntk, pairing.lead, wide)
            first, second = (
                weight * windows(v.reshape(was.shape), 1, full=False)
                for v, was in ((image.variance1, first), (image.variance2, second))
            )
            covariance = weight * windows(image.covariance, pairing.lead, wide)
            if windows.is_trivial:
                pairs = self._assemble(first, second, pairing, wide, Block(covariance, image.residual))
                residual = affine_moments(pairs, 1.0, bias).residual
            else:
                distance = half_squared_distance(image)
                distance = windows.distances(distance, image.variance1, image.variance2, pairing.lead, wide)
                pairs = self._assemble(first + bias, second + bias, pairing, wide, Block(covariance + bias, covariance))
                residual = _residual(pairs, weight * distance)
            return ((first + bias, second + bias), (covariance + bias, residual, ntk + bias)), None

        (ends, (covariance, residual, ntk)), _ = jax.lax.scan(step, (variances, whole), tuple(numbers))
        for s, variance in zip(sides, ends, strict=True):
            self._once((id(top), s), top, lambda variance=variance: variance)
        return Block(covariance, residual, ntk if pairing.tangent else None)

    def _residual(self, a: Node, b: Node, pairing: Pairing, full: bool, covariance: Array, distance: Array) -> Array:
        pairs = self.pairs(a, b, pairing, full, Block(covariance, jnp.zeros_like(covariance)))
        return _residual(pairs, distance)

    def _inputs(self, a: Source, b: Source, pairing: Pairing, full: bool) -> tuple[Block, Array | None]:
        """Products of known rows, and half their squared distances."""
        if a.labels != b.labels:
            raise UnsupportedError(_TWO_WAYS)
        if a.labels:
            labels = self._rows(a, pairing.left)[..., 0], self._rows(b, pairing.right)[..., 0]
            first, second = _aligned(*labels, pairing, full)
            equal = (first == second).astype(self.dtype)
            return Block(equal, 1 - equal), None
        left, right = self._rows(a, pairing.left), self._rows(b, pairing.right)
        k, d = left.ndim - 2, left.shape[-1]
        same = a is b and pairing.left == pairing.right
        if k == 0 and pairing.outer:
            pairs = nngp.input_covariance(left, None if same else right)
            return Block(d * pairs.covariance, pairs.residual), None
        shape, others = left.shape[1:-1], right.shape[1:-1]
        left, right = (rows.reshape(len(rows), -1, d) for rows in (left, right))
        pattern = {
            (True, True): "ipd,jqd->ijpq",
            (True, False): "ipd,jpd->ijp",
            (False, True): "ipd,iqd->ipq",
            (False, False): "ipd,ipd->ip",
        }[pairing.outer, full]
        covariance = jnp.einsum(pattern, left, right)
        first, second = (jnp.sum(rows**2, axis=-1) for rows in (left, right))
        if pairing.outer:
            left, right, first, second = left[:, None], right[None], first[:, None], second[None]
        if full:
            left, right = left[..., :, None, :], right[..., None, :, :]
            first, second = first[..., :, None], second[..., None, :]
        if d <= _DIRECT:
            distance = jnp.sum((left - right) ** 2, axis=-1) / 2
        else:
            distance = jnp.maximum((first + second) / 2 - covariance, 0.0)
        pairs = PairCovariance(first, second, covariance, covariance)
        blocks = (covariance, _residual(pairs, distance), distance)
        covariance, residual, distance = (
            x.reshape(*x.shape[: pairing.lead], *shape, *(others if full else ())) for x in blocks
        )
        return Block(covariance, residual), distance

    def _sum(self, a: Node, b: Node, pairing: Pairing, full: bool) -> Block | None:
        first, second = (n.parts if isinstance(n, Sum) else (n,) for n in (a, b))
        blocks = {
            (i, j): block
            for i, x in enumerate(first)
            for j, y in enumerate(second)
            if (block := self.block(x, y, pairing, full)) is not None
        }
        if not blocks:
            return None
        covariance = sum(block.covariance for block in blocks.values())
        ntks = [block.ntk for block in blocks.values() if block.ntk is not None]
        ntk = sum(ntks[1:], start=ntks[0]) if ntks else None
        known = a is b and len(blocks) == len(first) and all(i == j for i, j in blocks)
        if not known:
            return Block(covariance, None, ntk)  # pyright: ignore[reportArgumentType]
        constant = [i for i, part in enumerate(first) if isinstance(part, Bias)]
        flat = not full or all(np.prod(first[i].positions) == 1 for i in constant)
        if len(first) == 2 and len(constant) == 1 and flat:  # a layer with its bias: relatively accurate everywhere
            i = 1 - constant[0]
            bias = first[constant[0]]
            assert isinstance(bias, Bias)
            pairs = self.pairs(first[i], first[i], pairing, full, blocks[i, i])
            pairs = affine_moments(pairs, 1.0, self._number(bias.scale**2 * bias.variance))
            return Block(pairs.covariance, pairs.residual, ntk)
        distance = sum(
            half_squared_distance(self.pairs(part, part, pairing, full, blocks[i, i])) for i, part in enumerate(first)
        )
        return Block(covariance, self._residual(a, b, pairing, full, covariance, distance), ntk)  # pyright: ignore

    # Two features

    def feature_block(self, f: Feature, g: Feature, pairing: Pairing, full: bool) -> Block | None:
        """Second moments of two features; None if they vanish."""
        full = full and bool(f.positions or g.positions)
        key = (id(f), id(g), pairing, full, "feature")
        return self._once(key, (f, g), lambda: self._terms(f, g, pairing, full))

    def _terms(self, f: Feature, g: Feature, pairing: Pairing, full: bool) -> Block | None:
        own = pairing.own and not full
        if f is g and len(f.terms) == 1 and not own:
            return self._term_block(f.terms[0], g.terms[0], (f.positions, g.positions), pairing, full)
        blocks = {
            (i, j): block
            for i, x in enumerate(f.terms)
            for j, y in enumerate(g.terms)
            if (block := self._term_block(x, y, (f.positions, g.positions), pairing, full)) is not None
        }
        if not blocks:
            return None
        covariance = sum(block.covariance for block in blocks.values())
        ntks = [block.ntk for block in blocks.values() if block.ntk is not None]
        ntk = sum(ntks[1:], start=ntks[0]) if ntks else None
        if own or f is not g:
            return Block(covariance, None, ntk)  # pyright: ignore[reportArgumentType]
        return Block(covariance, self._feature_residual(f, blocks, pairing, full, covariance), ntk)  # pyright: ignore

    def _feature_residual(
        self, f: Feature, blocks: dict, pairing: Pairing, full: bool, covariance: Any
    ) -> Array | None:
        """From squared distances, which add up where the terms are independent."""
        for i, x in enumerate(f.terms):
            for y in f.terms[:i]:
                if any(m.leaves & n.leaves for m in x.nodes for n in y.nodes):
                    return None
        sides = pairing.left, pairing.right
        distance: Any = 0.0
        for (i, j), block in blocks.items():
            if i == j:
                own = [self._own_moment(f.terms[i], f.terms[i], s, f.positions) for s in sides]
                distance = distance + half_squared_distance(self._assemble(own[0], own[1], pairing, full, block))
            else:
                steps = [self._mean_steps(f.terms[k], f.positions, pairing, full) for k in (i, j)]
                distance = distance + steps[0] * steps[1] / 2
        first, second = (self.feature_variance(f, s) for s in sides)
        pairs = self._assemble(first, second, pairing, full, Block(covariance, jnp.zeros_like(covariance)))
        return _residual(pairs, distance)

    def _mean_steps(self, term: Term, positions: tuple[int, ...], pairing: Pairing, full: bool) -> Array:
        """By how much the mean of a term differs between two inputs."""
        first, second = (self._term_mean(term, s, positions) for s in (pairing.left, pairing.right))
        assert first is not None
        assert second is not None
        ones = jnp.ones_like
        return self._outer(first, ones(second), pairing, full) - self._outer(ones(first), second, pairing, full)

    def _own_moment(self, t: Term, u: Term, s: int, positions: tuple[int, ...]) -> Array:
        block = self._term_block(t, u, (positions, positions), Pairing(s, s, False), full=False)
        assert block is not None
        return block.covariance

    def _term_block(self, t: Term, u: Term, positions: tuple, pairing: Pairing, full: bool) -> Block | None:
        key = (id(t), id(u), pairing, full, "term")
        return self._once(key, (t, u), lambda: self._term_pair(t, u, positions, pairing, full))

    def _term_pair(self, t: Term, u: Term, positions: tuple, pairing: Pairing, full: bool) -> Block | None:
        """Second moments of two products: those of dependent functions times the means of all others."""
        left = self.per_example(t.factor, pairing.left, positions[0])
        right = self.per_example(u.factor, pairing.right, positions[1])
        matched: list[tuple[Atom, Atom]] = []
        free = list(u.atoms)
        for atom in t.atoms:
            partners = [other for other in u.atoms if _dependent(atom, other)]
            if len(partners) > 1 or any(other not in free for other in partners):
                raise UnsupportedError(_ENTANGLED)
            if partners:
                matched.append((atom, partners[0]))
                free.remove(partners[0])
            else:
                mean = self._atom_mean(atom, pairing.left)
                if mean is None:
                    return None
                left = left * mean
        for atom in free:
            mean = self._atom_mean(atom, pairing.right)
            if mean is None:
                return None
            right = right * mean
        found = [self._atom_block(a, b, pairing, full) for a, b in matched]
        blocks = [block for block in found if block is not None]
        if len(blocks) < len(found):
            return None
        factor = self._outer(left, right, pairing, full)
        if not blocks:
            return Block(factor)
        if len(blocks) == 1:
            (block,) = blocks
            ntk = None if block.ntk is None else factor * block.ntk
            return Block(factor * block.covariance, block.residual, ntk)
        covariance, ntk = factor, None
        for i, block in enumerate(blocks):
            covariance = covariance * block.covariance
            if block.ntk is not None:
                part = factor * block.ntk
                for j, other in enumerate(blocks):
                    part = part if i == j else part * other.covariance
                ntk = part if ntk is None else ntk + part
        return Block(covariance, None, ntk)

    def _atom_block(self, a: Atom, b: Atom, pairing: Pairing, full: bool) -> Block | None:
        key = (id(a), id(b), pairing, full, "atom")
        return self._once(key, (a, b), lambda: self._atom_pair(a, b, pairing, full))

    def _atom_pair(self, a: Atom, b: Atom, pairing: Pairing, full: bool) -> Block | None:
        if len(a.nodes) == 2 or len(b.nodes) == 2:
            return self._plane_pair(a, b, pairing, full)
        (first,), (second,) = a.nodes, b.nodes
        if a.fn is None and b.fn is None:
            return self.block(first, second, pairing, full)
        if is_mask(first) or is_mask(second):
            return self._mask_pair(a, b, pairing, full)
        f_params = [self._positioned(p, pairing, full, first.positions, left=True) for p in a.params]
        g_params = [self._positioned(p, pairing, full, second.positions, left=False) for p in b.params]
        same = a.function is b.function and a.function.dual is not None
        if pairing.own and not full and first is second:
            q = self.variance(first, pairing.left)
            if same:
                own = PairCovariance(q, q, q, jnp.zeros_like(q))
                return Block(a.function.dual.kernel(own).variance1)  # pyright: ignore[reportOptionalMemberAccess]
            count = len(a.params)

            def product(u: Array, *params: Array) -> Array:
                return a((u,), params[:count]) * b((u,), params[count:])

            function = elementwise(product, count + len(b.params))
            return Block(mean(function, q, [*f_params, *g_params]))
        block = self.block(first, second, pairing, full)
        if block is None:  # dependent by name, but of different channels
            means = self._atom_mean(a, pairing.left), self._atom_mean(b, pairing.right)
            return None if None in means else Block(self._outer(*means, pairing, full))  # pyright: ignore
        pairs = self.pairs(first, second, pairing, full, block)
        if same:
            result = a.function.dual.kernel(pairs)  # pyright: ignore[reportOptionalMemberAccess]
            ntk = None
            if block.ntk is not None:
                ntk = block.ntk * a.function.dual.derivative(pairs)  # pyright: ignore[reportOptionalMemberAccess]
            return Block(result.covariance, result.residual, ntk)
        covariance = second_moment(a.function, b.function, pairs, f_params, g_params)
        ntk = None
        if block.ntk is not None:
            ntk = block.ntk * second_moment(a.function, b.function, pairs, f_params, g_params, slope=True)
        return Block(covariance, None, ntk)

    def _mask_pair(self, a: Atom, b: Atom, pairing: Pairing, full: bool) -> Block:
        """Two functions of entries of a mask, which are linear."""
        (start1, step1), (start2, step2) = _on_mask(a), _on_mask(b)
        (first,), (second,) = a.nodes, b.nodes
        both = _present(self.block(first, second, pairing, full)).covariance
        means = self._node_mean(first, pairing.left), self._node_mean(second, pairing.right)
        on_left = self._outer(means[0], jnp.ones_like(means[1]), pairing, full)
        on_right = self._outer(jnp.ones_like(means[0]), means[1], pairing, full)
        return Block(start1 * start2 + start2 * step1 * on_left + start1 * step2 * on_right + step1 * step2 * both)

    def _plane_pair(self, a: Atom, b: Atom, pairing: Pairing, full: bool) -> Block | None:
        """Two functions one of which has two nodes; a function of one of them does not depend on the other."""
        if len(a.nodes) == 2:
            lefts, rights = a.nodes, _partners(a.nodes, b.nodes)
        else:
            lefts, rights = _partners(b.nodes, a.nodes), b.nodes
        f, g = _on_plane(a, lefts), _on_plane(b, rights)
        f_params = [self._positioned(p, pairing, full, lefts[0].positions, left=True) for p in a.params]
        g_params = [self._positioned(p, pairing, full, rights[0].positions, left=False) for p in b.params]
        if pairing.own and not full and lefts == rights:
            count = len(a.params)

            def product(u: Array, w: Array, *params: Array) -> Array:
                return f.fn(u, w, *params[:count]) * g.fn(u, w, *params[count:])

            function = elementwise(product, 1 + count + len(b.params))
            first, second = (self.variance(node, pairing.left) for node in lefts)
            return Block(plane_mean(function, first, second, [*f_params, *g_params]))
        blocks, pairs = [], []
        for x, y in zip(lefts, rights, strict=True):
            block = self.block(x, y, pairing, full)
            if block is None:
                first = self.variance(x, pairing.left)
                block = Block(0 * self._outer(first, self.variance(y, pairing.right), pairing, full))
            blocks.append(block)
            pairs.append(self.pairs(x, y, pairing, full, block))
        covariance = plane_second_moment(f, g, pairs[0], pairs[1], f_params, g_params)
        ntk = None
        for i, block in enumerate(blocks):
            if block.ntk is not None:
                change = plane_second_moment(f, g, pairs[0], pairs[1], f_params, g_params, along=i) * block.ntk
                ntk = change if ntk is None else ntk + change
        return Block(covariance, None, ntk)

    def _positioned(self, known: Known, pairing: Pairing, full: bool, positions: tuple, *, left: bool) -> Array:
        array = self.per_example(known, pairing.left if left else pairing.right, positions)
        array = pairing.on_left(array) if left else pairing.on_right(array)
        if not full:
            return array
        k = len(positions)
        shape = (*positions, *(1,) * k) if left else (*(1,) * k, *positions)
        return array.reshape(*array.shape[: pairing.lead], *shape)


_CHAIN = 2  # so many equal layers are worth a loop


class _Layer(NamedTuple):
    """A layer that keeps its positions: a function of the node below, weights and a bias.

    Attributes:
        below: the node below.
        dual: that of the function.
        windows: of the weights.
        numbers: the factors by which the layer multiplies second moments, and what its bias adds.
    """

    below: Node
    dual: nngp.Dual
    windows: Windows
    numbers: tuple[Any, Any]


def _chain(top: Node) -> list[_Layer]:
    """The equal layers that end at a node, from below."""
    layers: list[_Layer] = []
    node = top
    while (layer := _layer(node)) is not None:
        if layers and (layer.dual is not layers[-1].dual or layer.windows != layers[-1].windows):
            break
        layers.append(layer)
        node = layer.below
    return layers[::-1]


def _layer(node: Node) -> _Layer | None:
    parts = node.parts if isinstance(node, Sum) else (node,)
    products = [part for part in parts if isinstance(part, Product)]
    biases = [_bias(part) for part in parts if not isinstance(part, Product)]
    if len(products) != 1 or len(biases) > 1 or None in biases:
        return None
    (product,) = products
    windows = product.windows
    if isinstance(product.source, Source) or len(product.source.terms) != 1 or windows.out != windows.shape:
        return None
    (term,) = product.source.terms
    if len(term.atoms) != 1 or len(term.nodes) != 1 or not term.factor.is_static or term.atoms[0].params:
        return None
    (atom,), (below,) = term.atoms, term.nodes
    if atom.fn is None or not below.gaussian or not product.gaussian or below.leaves & product.leaves:
        return None
    dual = atom.function.dual
    assert dual is not None
    weight = product.scale**2 * product.variance * float(term.factor.scalar()) ** 2
    return _Layer(below, dual, windows, (weight, biases[0] if biases else 0.0))


def _bias(node: Node) -> Any:
    """What a bias that is the same at all positions adds to second moments; None for other nodes."""
    if isinstance(node, Moved) and isinstance(node.move, Index) and node.move.is_complete:
        node = node.node
    if isinstance(node, Bias) and math.prod(node.positions) == 1:
        return node.scale**2 * node.variance
    return None


_TWO_WAYS = "the same weights are used in two ways that depend on each other, which has no Gaussian limit"
_ENTANGLED = "a product of dependent functions has no rule"


def _aligned(first: Array, second: Array, pairing: Pairing, full: bool) -> tuple[Array, Array]:
    """Arrays [n, *positions] and [m, *positions] as they broadcast against a block."""
    first, second = pairing.on_left(first), pairing.on_right(second)
    if full:
        k, more = first.ndim - pairing.lead, second.ndim - pairing.lead
        first = first.reshape(*first.shape, *(1,) * more)
        second = second.reshape(*second.shape[: pairing.lead], *(1,) * k, *second.shape[pairing.lead :])
    return first, second


def _equal_places(examples: Array, positions: tuple[int, ...], full: bool) -> Array:
    """Equal positions of equal examples: pairs [..., *positions(, *positions)] of which none or one is broadcast."""
    if not full:
        return examples.reshape(*examples.shape, *(1,) * len(positions))
    places = jnp.eye(math.prod(positions), dtype=bool).reshape((1,) * examples.ndim + (*positions, *positions))
    return examples.reshape(*examples.shape, *(1,) * (2 * len(positions))) & places


def _on_mask(atom: Atom) -> tuple[float, float]:
    """A function of a mask: its value at 0, and what it gains at 1."""
    off, on = (float(atom((np.asarray(value),), ())) for value in (0.0, 1.0))  # pyright: ignore[reportArgumentType]
    return off, on - off


def _is_fresh(node: Node, other: Node) -> bool:
    """Whether a node is linear in weights of mean 0 on which the other does not depend."""
    return isinstance(node, Product | Bias) and node.leaf not in other.leaves


def _dependent(a: Atom, b: Atom) -> bool:
    return any(m.leaves & n.leaves for m in a.nodes for n in b.nodes)


def _present(block: Block | None) -> Block:
    assert block is not None, "nothing has the variance 0"
    return block


def _partners(nodes: tuple[Node, ...], others: tuple[Node, ...]) -> tuple[Node, ...]:
    """For each of two nodes the one of the others that depends on it, or itself."""
    found = []
    for node in nodes:
        partners = [other for other in others if node.leaves & other.leaves]
        if len(partners) > 1:
            raise UnsupportedError(_ENTANGLED)
        found.append(partners[0] if partners else node)
    if found[0] is found[1] or any(other not in found for other in others):
        raise UnsupportedError(_ENTANGLED)
    return tuple(found)


def _on_plane(atom: Atom, nodes: tuple[Node, ...]) -> Elementwise:
    """A function as one of two nodes, its own among them."""
    places = [nodes.index(node) for node in atom.nodes]

    def fn(u: Array, w: Array, *params: Array) -> Array:
        here = [(u, w)[i] for i in places]
        return jnp.broadcast_to(atom(tuple(here), params), jnp.broadcast_shapes(u.shape, w.shape))

    return elementwise(fn, 1 + len(atom.params))


def _alike(first: Index, second: Index) -> bool:
    return first is second or (first.shape == second.shape and np.array_equal(first.index, second.index))


def _map(block: Block, move: Any, keeps_residual: bool) -> Block:
    """A block with its positions mapped."""
    residual = move(block.residual) if keeps_residual and block.residual is not None else None
    return Block(move(block.covariance), residual, None if block.ntk is None else move(block.ntk))


def _broadcast_examples(array: Array, pairing: Pairing, sizes: tuple[int, ...]) -> Array:
    if pairing.outer:
        return jnp.broadcast_to(array, (sizes[pairing.left], sizes[pairing.right], *array.shape[2:]))
    return array


def _diagonal(array: Array, lead: int, k: int) -> Array:
    """Equal positions of [..., *positions, *positions]."""
    for i in range(k):
        array = jnp.moveaxis(jnp.diagonal(array, axis1=lead + i, axis2=lead + k), -1, lead + i)
    return array


def _residual(pairs: PairCovariance, distance: Array) -> Array:
    """1 - rho^2 from half the squared distance, which is what is accurate for nearly equal variables."""
    root1, root2 = safe_sqrt(pairs.variance1), safe_sqrt(pairs.variance2)
    size = root1 * root2
    unequal = safe_ratio(pairs.variance1 - pairs.variance2, root1 + root2) ** 2 / 2
    gap = jnp.clip(safe_ratio(distance - unequal, size, 1.0), 0.0, 2.0)
    rho = as_correlation(safe_ratio(pairs.covariance, size))
    return jnp.where(rho > 0, gap * (2 - gap), (1 - rho) * (1 + rho))
