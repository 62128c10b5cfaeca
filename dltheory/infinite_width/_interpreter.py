"""Reads an infinitely wide network off its program: equation by equation, over abstract values.

A value is `Known`, `Weights`, or `Random`: independent and identically distributed along channels. The axes of the
program's arrays are taken apart into factors, each a channel or a position, so that reshaping and flattening are
understood.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dltheory._axes import ELEMENTWISE
from dltheory._programs import Atom as Operand
from dltheory._programs import Constant, Equation, Program, evaluate
from dltheory.infinite_width import _algebra as algebra
from dltheory.infinite_width._gaussians import (
    Bias,
    Feature,
    Mask,
    Node,
    Product,
    Source,
    Term,
    UnsupportedError,
    move_feature,
    move_node,
    node_feature,
    shift_feature,
    shift_node,
    sum_nodes,
)
from dltheory.infinite_width._known import Known, is_concrete
from dltheory.infinite_width._moments import Moments, Pairing
from dltheory.infinite_width._positions import Index, Linear, Tap, Windows
from dltheory.typing import Array

__all__ = ["Interpreter", "Random", "Value", "Weights"]


class Factor(NamedTuple):
    """Part of an axis: a channel or a position.

    Attributes:
        channel: whether it is a channel.
        size: number of entries.
        stride: by how many channels they are apart, which tells the factors of channels that are taken apart.
    """

    channel: bool
    size: int
    stride: int = 1


Axes = tuple[tuple[Factor, ...], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Piece:
    """Some channels that are identically distributed.

    Attributes:
        size: how many.
        base: a feature.
        move: how its positions are copied.
    """

    size: int
    base: Feature
    move: Index

    @functools.cached_property
    def feature(self) -> Feature:
        """The feature with its positions copied."""
        return move_feature(self.base, self.move)


@dataclasses.dataclass(frozen=True, eq=False)
class Random:
    """An array that is random along its channels.

    Attributes:
        axes: the factors of every axis; none for an axis of size 1.
        pieces: what stands side by side along the channels.
    """

    axes: Axes
    pieces: tuple[Piece, ...]

    @property
    def positions(self) -> tuple[int, ...]:
        """Sizes of the positions, in the order of the axes."""
        return tuple(f.size for axis in self.axes for f in axis if not f.channel)

    @property
    def channels(self) -> list[int]:
        """The axes that hold channels."""
        return [i for i, axis in enumerate(self.axes) if any(f.channel for f in axis)]


class Weights(NamedTuple):
    """A parameter leaf, or a part of one: independent entries of mean 0.

    Attributes:
        leaf: what it is a part of.
        axes: the axes of the leaf, as (number, size), that every axis consists of; axes of size 1 have none. Of an axis
            that is taken apart the outer part is ((number, stride), size).
        scale: a number times the entries.
    """

    leaf: Hashable
    axes: tuple[tuple[tuple[int, int], ...], ...]
    scale: Known

    def size(self, axis: int) -> int:
        """Number of entries along an axis."""
        return math.prod(size for _, size in self.axes[axis])


class Vanishing(NamedTuple):
    """A sum of n independent terms of mean 0: smaller than n by a factor of sqrt(n)."""

    width: int
    zeros: Known


class Total(NamedTuple):
    """A sum over channels that grows like a power of the width, until it is divided by that.

    Attributes:
        width: number of terms.
        known: its value at this width.
        power: of the width.
        factor: the numbers that it has been multiplied with.
    """

    width: int
    known: Known
    power: float = 1.0
    factor: float = 1.0


class Noise(NamedTuple):
    """Numbers that the network draws, independent and identically distributed.

    Attributes:
        name: what tells the draw from others.
        shape: of the array.
        bits: number of random bits of an entry.
        fn: (bits) -> entries.
    """

    name: Hashable
    shape: tuple[int, ...]
    bits: int
    fn: Callable[[Array], Array]


Value = Known | Weights | Random | Vanishing | Total | Noise


class Interpreter:
    """Interprets programs.

    Attributes:
        moments: evaluates averages over channels, which are known numbers.
        variance: (leaf, number of summed weights or None for a bias) -> variance of an entry.
        drawn: the numbers of a program that are random bits of their own for every example.
    """

    def __init__(
        self,
        moments: Moments,
        variance: Callable[[Hashable, int | None], Array | float],
        drawn: Collection[int] = (),
    ) -> None:
        self.moments = moments
        self.variance = variance
        self.drawn = drawn
        self._masks: dict[Hashable, Mask] = {}
        self._uses: dict[Hashable, Any] = {}
        self._parts: dict[Hashable, set[tuple]] = {}

    def run(self, program: Program, inputs: Sequence[Value]) -> list[Value]:
        """The outputs of a program."""
        values: dict[int, Value] = {n: Known.constant(array) for n, array in program.constants.items()}
        values |= zip(program.inputs, inputs, strict=True)

        def read(atom: Operand) -> Value:
            return Known.constant(atom.value) if isinstance(atom, Constant) else values[atom]

        for equation in program.equations:
            operands = [read(atom) for atom in equation.inputs]
            try:
                results = self.step(program, equation, operands)
            except UnsupportedError as error:
                raise error.at(_where(equation)) from None
            values |= zip(equation.outputs, results, strict=True)
        return [read(atom) for atom in program.outputs]

    def step(self, program: Program, equation: Equation, operands: list[Value]) -> Sequence[Value]:
        """The outputs of one equation."""
        name = equation.name
        shape = program.shapes[equation.outputs[0]].shape
        if equation.outputs[0] in self.drawn:
            return [_draw(equation, operands, shape)]
        masked = name in ELEMENTWISE and any(isinstance(v, Random) for v in operands)
        if any(isinstance(v, Noise) for v in operands) and equation.body is None and not masked:
            return [_noise(equation, operands, shape)]
        if all(isinstance(value, Known) for value in operands):
            return _known_equation(program, equation, operands)  # pyright: ignore[reportArgumentType]
        if any(isinstance(value, Vanishing) for value in operands):
            return [_vanish(program, equation, operands)]
        if equation.body is not None and name != "scan":
            _require_own_derivative(program, equation)
            return self.run(equation.body, operands)
        if name == "scan":
            return self._scan(equation, operands)
        if any(isinstance(value, Total) for value in operands):
            divided = _divided(equation, operands)
            if divided is None:
                return [_total(program, equation, operands)]
            operands = divided
        if name == "dot_general":
            return [self._dot_general(program, equation, operands)]
        if name == "conv_general_dilated":
            return [self._convolution(program, equation, operands)]
        if name in ELEMENTWISE:
            return [self._elementwise(equation, operands)]
        if name in {"concatenate", "stack"}:
            return [self._concatenate(equation, operands)]
        if name == "split":
            return self._split(equation, operands)
        (value, *others) = operands
        if name == "gather" and isinstance(value, Weights) and isinstance(others[0], Known):
            return [self._lookup(program, equation, value, others[0])]
        if isinstance(value, Weights):
            return [_weights_rule(equation, value, shape)]
        if not isinstance(value, Random) or not all(isinstance(other, Known) for other in others):
            raise UnsupportedError("no rule for operands of these kinds")
        if name in {"reshape", "squeeze", "expand_dims"}:
            return [_reshape(value, shape)]
        if name == "transpose":
            return [_transpose(value, equation.params["permutation"])]
        if name == "broadcast_in_dim":
            return [_broadcast(value, shape, equation.params["broadcast_dimensions"])]
        if name in {"slice", "rev", "pad", "gather", "dynamic_slice"}:
            return [_copy(program, equation, value, others)]  # pyright: ignore[reportArgumentType]
        if name == "reduce_sum":
            return [self._reduce_sum(equation, value)]
        if name in {"reduce_window_sum", "cumsum"}:
            return [_linear(equation, value, shape)]
        if name in {"reduce_max", "reduce_min", "reduce_window_max", "reduce_window_min", "argmax", "argmin", "sort"}:
            raise UnsupportedError("the largest of several Gaussians has no closed form")
        raise UnsupportedError("there is no rule for this primitive")

    # Functions of single entries

    def _elementwise(self, equation: Equation, operands: list[Value]) -> Value:
        name = equation.name
        if name in {"convert_element_type", "copy", "reduce_precision", "real"} and not isinstance(operands[0], Random):
            return operands[0]
        if not any(isinstance(value, Random) for value in operands):
            return _scale_weights(name, operands)
        template = _template(operands)
        if name == "mul" and any(isinstance(value, Weights) for value in operands):
            raise UnsupportedError("random weights that multiply channel by channel leave no Gaussian")
        values = [
            self._as_random(v, template)
            if isinstance(v, Weights)
            else self._as_mask(v, template)
            if isinstance(v, Noise)
            else v
            for v in operands
        ]
        cuts = _common_cuts([v for v in values if isinstance(v, Random)])
        pieces = []
        for start, stop in cuts:
            features = [_cut(v, start, stop) if isinstance(v, Random) else _positioned(v, template) for v in values]
            feature = algebra.apply(equation, features, template.positions)
            pieces.append(Piece(stop - start, feature, _identity(template.positions)))
        return Random(template.axes, tuple(pieces))

    def _as_random(self, weights: Weights, template: Random) -> Random | Known:
        """Weights that are added to an array; 0 if they are."""
        variance = self.variance(weights.leaf, None)
        layout = weights.axes or ((),) * len(template.axes)
        self._use(weights, "added", "bias", [factors for factors in layout if factors])
        self._take(weights.leaf)
        if isinstance(variance, int | float) and variance == 0:
            return Known.constant(0.0, len(template.axes))
        whole = []
        for axis, factors in zip(template.axes, layout, strict=True):
            if not factors and any(f.channel for f in axis):
                raise UnsupportedError("one random number for all channels leaves them dependent")
            if factors and [size for _, size in factors] != [f.size for f in axis]:
                raise UnsupportedError("weights are added along axes that are taken apart differently")
            whole.append(bool(factors))
        pairs = [p for axis, own in zip(template.axes, layout, strict=True) for p in zip(own, axis, strict=bool(own))]
        strides = [f.stride for _, f in sorted(pairs, key=lambda pair: _place(pair[0])) if f.channel]
        if strides != sorted(strides, reverse=True):
            raise UnsupportedError("weights are added to channels in another order than theirs")
        own, move = _spread(template, whole)
        node = Bias(own, True, frozenset([weights.leaf]), weights.leaf, weights.scale.scalar(), variance)
        return _at_every_channel(template, node, lambda n: node_feature(move_node(n, move)))

    def _as_mask(self, noise: Noise, template: Random) -> Random:
        """Numbers of which there are two, such as what dropout multiplies with."""
        whole = []
        for axis, size in zip(template.axes, noise.shape, strict=True):
            if size == 1 and any(f.channel for f in axis):
                raise UnsupportedError("one random number for all channels leaves them dependent")
            whole.append(size > 1)
        own, move = _spread(template, whole)
        values, rate = _two_values(noise)
        order = [f.stride for f in _channels(template.axes)]
        if self._uses.setdefault(("noise", noise.name), order) != order:
            raise UnsupportedError("the same random numbers meet channels in different orders")
        key = noise.name, rate, own
        mask = self._masks.setdefault(key, Mask(own, False, frozenset([noise.name]), rate))

        def feature(node: Node) -> Feature:
            moved, rank = move_node(node, move), len(template.positions)
            cases = zip(values, algebra.cases(moved), strict=True)
            return Feature(template.positions, tuple(Term(Known.constant(v, rank), (c,)) for v, c in cases if v))

        return _at_every_channel(template, mask, feature)

    # Sums

    def _reduce_sum(self, equation: Equation, value: Random) -> Value:
        axes = equation.params["axes"]
        factors = [f for a in axes for f in value.axes[a]]
        if not any(f.channel for f in factors):
            return _linear(equation, value, None)
        count = math.prod(f.size for f in factors if f.channel)
        kept = [a for a in range(len(value.axes)) if a not in axes]
        _require_inner(factors, _channels([value.axes[a] for a in kept]))
        shape = tuple(math.prod(f.size for f in value.axes[a] if not f.channel) for a in kept)
        flags = [a in axes for a, axis in enumerate(value.axes) for f in axis if not f.channel]
        summed = tuple(i for i, flag in enumerate(flags) if flag)

        def total(s: int) -> Array:
            shares = [piece.size / _width(value) for piece in value.pieces]
            means = [q * self.moments.mean(p.feature, s) for q, p in zip(shares, value.pieces, strict=True)]
            whole = sum(means[1:], start=means[0])
            return jnp.sum(count * whole, axis=tuple(1 + i for i in summed)).reshape(-1, *shape)

        if all(algebra.is_centred(piece.feature) for piece in value.pieces):
            return Vanishing(count, Known.constant(np.zeros((1,) * len(kept))))
        known = Known(tuple(total(s) for s in range(len(self.moments.sizes))), batched=True)
        return _settled(Total(count, known, 1.0, max(_factor(piece.feature) for piece in value.pieces)))

    def _dot_general(self, program: Program, equation: Equation, operands: list[Value]) -> Value:
        (contract, batch) = equation.params["dimension_numbers"]
        kinds = [isinstance(value, Weights) for value in operands]
        if all(kinds):
            raise UnsupportedError("a product of random matrices has no Gaussian entries")
        if any(kinds):
            w = kinds.index(True)
            return self._layer(program, equation, operands, 1 - w, w)
        if all(isinstance(value, Random) for value in operands):
            return self._inner_products(equation, operands)  # pyright: ignore[reportArgumentType]
        r = 0 if isinstance(operands[0], Random) else 1
        value, known = operands[r], operands[1 - r]
        assert isinstance(value, Random)
        assert isinstance(known, Known)
        whole = list(program.shape(equation.inputs[1 - r]))
        differs = _channels([value.axes[a] for a in contract[r]])
        for a, b in zip(batch[r], batch[1 - r], strict=True):
            if _channels([value.axes[a]]) and known.shape[b] == 1 and all(f.channel for f in value.axes[a]):
                whole[b] = 1
            else:
                differs += _channels([value.axes[a]])
        if differs:
            raise UnsupportedError("channels are weighted by known numbers, which has no rule")
        known = known.whole(tuple(whole))
        free = [
            [a for a in range(len(program.shape(equation.inputs[i]))) if a not in contract[i] and a not in batch[i]]
            for i in (0, 1)
        ]
        axes: list[tuple[Factor, ...]] = [value.axes[a] for a in batch[r]]
        for i in (0, 1):
            axes += [value.axes[a] if i == r else _position(whole[a]) for a in free[i]]
        return _linear(equation, value, None, known=known, slot=r, axes=tuple(axes))

    def _use(self, weights: Weights, summed: Any, kind: str, pairing: Any = None) -> None:
        """Notes how the axes of a leaf are used: alike wherever it is, or else the layers depend on each other.

        Of each kind of what it is multiplied with, the entries must be paired with those of the leaf alike.
        """
        keys = {weights.leaf: summed, (weights.leaf, kind): pairing}
        if any(self._uses.setdefault(key, use) != use for key, use in keys.items()):
            raise UnsupportedError(
                "weights are used a second time in another way, as with their axes exchanged, so that the layers "
                "depend on each other"
            )

    def _take(self, part: Hashable) -> None:
        """Notes that a part of a leaf is used: parts are the same ones or disjoint."""
        leaf, cuts = _cuts(part)
        parts = self._parts.setdefault(leaf, set())
        if any(_overlap(cuts, others) for others in parts):
            raise UnsupportedError("the whole of weights is used, and a part of them by itself, which has no rule")
        parts.add(cuts)

    def _layer(self, program: Program, equation: Equation, operands: list[Value], x: int, w: int) -> Value:
        contract, batch = equation.params["dimension_numbers"]
        value, weights = operands[x], operands[w]
        assert isinstance(weights, Weights)
        shape = program.shape(equation.inputs[x])
        free = [a for a in range(len(shape)) if a not in contract[x] and a not in batch[x]]
        own = [a for a in range(len(weights.axes)) if a not in contract[w] and a not in batch[w]]
        _require_whole(weights, program.shape(equation.inputs[w]), (*contract[w], *own))
        made = _made(weights, own)
        summed, taken = _paired(weights, contract[w], contract[x])
        untied = [(a, b) for a, b in zip(batch[x], batch[w], strict=True) if weights.axes[b]]
        each, mapped = _paired(weights, [b for _, b in untied], [a for a, _ in untied])
        fan_in = math.prod(shape[a] for a in contract[x])
        variance = self.variance(weights.leaf, fan_in)
        scale, leaves = weights.scale.scalar(), frozenset([weights.leaf])
        if isinstance(value, Known) and value.is_number(0.0):
            return Known.constant(np.zeros((1,) * len(program.shapes[equation.outputs[0]].shape)))
        untied = [a for a, _ in untied]
        if isinstance(value, Known):
            places = [a for a in (*batch[x], *free) if shape[a] > 1]
            positions = tuple(shape[a] for a in places)
            order = (*batch[x], *free, *taken)
            self._use(weights, (summed, each), "known", [weights.axes[a] for a in batch[w]])
            self._take(weights.leaf)
            rows = Known.apply(lambda a: jnp.broadcast_to(a, shape).transpose(order).reshape(*positions, fan_in), value)
            rows = rows.whole((*positions, fan_in))
            rules = tuple("untied" if a in untied else "keep" for a in places)
            windows = Windows(positions, rules, tuple(range(len(positions))))
            node = Product(positions, True, leaves, weights.leaf, scale, variance, Source(rows), windows)
            nodes = [(_width_of(made), node)]
            kept = {a: _position(shape[a]) for a in places}
        else:
            assert isinstance(value, Random)
            nodes, start = [], 0
            met = _channels([value.axes[a] for a in contract[x]])
            if not met:
                raise UnsupportedError("weights are summed over an axis that does not grow with the width")
            rest = _channels([value.axes[a] for a in (*batch[x], *free)])
            _require_inner(met, rest)
            tied = _channels([value.axes[a] for a in range(len(shape)) if a not in (*contract[x], *untied)])
            if tied and not all(algebra.is_centred(piece.feature) for piece in value.pieces):
                raise UnsupportedError("the same weights for several channels leave them dependent")
            inside = [a for a in (*taken, *mapped) if any(not f.channel for f in value.axes[a])]
            pairing = [value.axes[a] for a in (*taken, *mapped)], np.argsort(inside).tolist()
            self._use(weights, (summed, each), "random", pairing)
            rules = dict.fromkeys(contract[x], "sum") | dict.fromkeys(untied, "untied")
            rules = tuple(rules.get(a, "keep") for a, axis in enumerate(value.axes) for f in axis if not f.channel)
            places = _places(value.axes)
            order = tuple(i for a in (*batch[x], *free) for i in places[a])
            total, where = math.prod(f.size for f in met), _where(equation)
            parts = []
            for piece in value.pieces:
                feature = piece.feature
                windows = Windows(feature.positions, rules, order)
                leaf = weights.leaf if len(value.pieces) == 1 else (weights.leaf, "rows", start, start + piece.size)
                self._take(leaf)
                count = total * piece.size // _width(value)
                own_leaf = frozenset([leaf])
                parts.append(
                    Product(windows.out, True, own_leaf, leaf, scale, variance * count, feature, windows, where)
                )
                start += piece.size
            node = sum_nodes(parts)
            nodes = [(_width_of([*made, tuple(rest)]), node)]
            kept = dict(enumerate(_outside(value.axes, rest, _width_of(made))))
        axes: list[tuple[Factor, ...]] = [kept.get(a, ()) for a in batch[x]]
        blocks = {x: [kept.get(a, ()) for a in free], w: made}
        axes += [*blocks[0], *blocks[1]]
        pieces = [Piece(max(size, 1), node_feature(n), _identity(n.positions)) for size, n in nodes]
        return Random(tuple(axes), tuple(pieces))

    def _lookup(self, program: Program, equation: Equation, weights: Weights, numbers: Known) -> Random:
        """Rows of weights that integers pick out: their products with one-hot vectors."""
        table, shape = program.shape(equation.inputs[0]), program.shape(equation.inputs[1])
        places = equation.params["dimension_numbers"]
        offsets = tuple(range(len(shape) - 1, len(shape) + len(table) - 2))
        rows = places.collapsed_slice_dims == places.start_index_map == (0,) and places.offset_dims == offsets
        if not rows or tuple(equation.params["slice_sizes"]) != (1, *table[1:]):
            raise UnsupportedError("of weights only rows are picked out by integers (an embedding)")
        _require_whole(weights, table, range(len(table)))
        self._use(weights, [0], "labels")
        self._take(weights.leaf)
        clipped = equation.params["mode"] == jax.lax.GatherScatterMode.CLIP
        positions = tuple(size for size in shape[:-1] if size > 1)

        def label(array: Array) -> Array:
            row = jnp.broadcast_to(array, shape).reshape(*positions, 1)
            return jnp.clip(row, 0, table[0] - 1) if clipped else row

        variance = self.variance(weights.leaf, math.prod(table[1:]))
        windows = Windows(positions, ("keep",) * len(positions), tuple(range(len(positions))))
        leaves = frozenset([weights.leaf])
        source = Source(Known.apply(label, numbers).whole((*positions, 1)), labels=True)
        node = Product(positions, True, leaves, weights.leaf, weights.scale.scalar(), variance, source, windows)
        channels = _made(weights, range(1, len(table)))
        axes = (*map(_position, shape[:-1]), *channels)
        return Random(axes, (Piece(max(_width_of(channels), 1), node_feature(node), _identity(positions)),))

    def _inner_products(self, equation: Equation, operands: list[Random]) -> Value:
        """Averages over the channels of products of two features."""
        contract, batch = equation.params["dimension_numbers"]
        channels = [f for a in contract[0] for f in operands[0].axes[a]]
        if not channels or not all(f.channel for f in channels):
            raise UnsupportedError("a product of two random arrays that is summed over positions has no rule")
        left, right = operands
        if len(left.pieces) != 1 or len(right.pieces) != 1:
            raise UnsupportedError("inner products of concatenated channels have no rule")
        first, second = left.pieces[0].feature, right.pieces[0].feature
        free = [
            [a for a in range(len(v.axes)) if a not in contract[i] and a not in batch[i]]
            for i, v in enumerate(operands)
        ]
        if any(f.channel for i, v in enumerate(operands) for a in free[i] for f in v.axes[a]):
            raise UnsupportedError("an outer product of channels has no rule")
        pairs = [(left.axes[a], right.axes[b]) for d in (contract, batch) for a, b in zip(*d, strict=True)]
        if any(_channels([one]) != _channels([other]) for one, other in pairs):
            raise UnsupportedError("an inner product of channels in different orders has no rule")
        _require_inner(channels, [f for a in batch[0] for f in left.axes[a]])
        rank = max(len(first.positions), len(second.positions))
        first, second = (_with_rank(feature, rank) for feature in (first, second))
        width = math.prod(f.size for f in channels)
        places = [_places(v.axes) for v in operands]
        shared = [(places[0][a], places[1][b]) for a, b in zip(*batch, strict=True)]
        lead = [i for pair in shared for i in pair[0]]
        k = len(first.positions)
        partner = {i: k + j for pair in shared for i, j in zip(*pair, strict=True)}
        sizes = [math.prod(f.size for f in left.axes[a] if not f.channel) for a in batch[0]]
        sizes += [
            math.prod(f.size for f in v.axes[a] if not f.channel) for i, v in enumerate(operands) for a in free[i]
        ]
        names = list(range(k + len(second.positions)))
        for i, j in partner.items():
            names[j] = names[i]
        out = [*lead, *(i for a in free[0] for i in places[0][a]), *(k + i for a in free[1] for i in places[1][a])]

        def total(s: int) -> Array | None:
            block = self.moments.feature_block(first, second, Pairing(s, s, False), full=True)
            if block is None:
                return None
            n = self.moments.sizes[s]
            array = jnp.broadcast_to(block.covariance, (n, *first.positions, *second.positions))
            array = jnp.einsum(array, [100, *names], [100, *out])
            return width * array.reshape(n, *sizes)

        arrays = [total(s) for s in range(len(self.moments.sizes))]
        if any(array is None for array in arrays):
            return Vanishing(width, Known.constant(np.zeros((1,) * len(sizes))))
        known = Known(tuple(arrays), batched=True)  # pyright: ignore[reportArgumentType]
        return _settled(Total(width, known, 1.0, _factor(first) * _factor(second)))

    def _convolution(self, program: Program, equation: Equation, operands: list[Value]) -> Value:
        value, weights = operands
        shape, out_shape = program.shape(equation.inputs[0]), program.shape(equation.outputs[0])
        params = equation.params
        numbers = params["dimension_numbers"]
        groups = params["feature_group_count"]
        if isinstance(value, Random) and isinstance(weights, Known):
            return _patches(program, equation, value, weights)
        if not isinstance(weights, Weights) or params["batch_group_count"] != 1:
            raise UnsupportedError("only a convolution of an array with weights has a rule")
        lhs, rhs, out = numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec
        _require_whole(weights, program.shape(equation.inputs[1]), rhs)
        kind = "known" if isinstance(value, Known) else "random"
        self._use(weights, [weights.axes[a] for a in rhs[1:]], kind, np.argsort(lhs[2:]).tolist())
        self._take(weights.leaf)
        sizes = [weights.size(a) for a in rhs]
        fan_in = math.prod(sizes[1:])
        variance = self.variance(weights.leaf, fan_in)
        taps = {}
        for i, axis in enumerate(lhs[2:]):
            taps[axis] = Tap(
                sizes[2 + i],
                out_shape[out[2 + i]],
                params["window_strides"][i],
                params["rhs_dilation"][i],
                params["padding"][i][0],
                params["padding"][i][1],
                params["lhs_dilation"][i],
            )
        to_out = dict(zip(lhs, out, strict=True))
        gaussian = True
        if isinstance(value, Known):
            if groups > 1:
                raise UnsupportedError("groups of input channels make output channels differently distributed")
            order = [a for a in range(len(shape)) if a != lhs[1]]
            kept = [a for a in order if shape[a] > 1 or a in taps]
            rows = Known.apply(
                lambda a: (
                    jnp.broadcast_to(a, shape)
                    .transpose((*order, lhs[1]))
                    .reshape(*(shape[a] for a in kept), shape[lhs[1]])
                ),
                value,
            )
            positions = tuple(shape[a] for a in kept)
            source: Source | Feature = Source(rows.whole((*positions, shape[lhs[1]])))
            count = 1
            others = {a: _position(shape[a]) for a in kept if a not in taps}
        else:
            assert isinstance(value, Random)
            if len(value.pieces) != 1 or [f.channel for f in value.axes[lhs[1]]] != [True]:
                raise UnsupportedError("a convolution over channels that are not one axis of equal ones has no rule")
            if len(_channels(value.axes)) > 1:
                raise UnsupportedError("a convolution along channels, or of several groups of them, has no rule")
            (piece,) = value.pieces
            feature = piece.feature
            kept, positions, index = [], [], np.arange(math.prod(feature.positions)).reshape(feature.positions)
            for a, axis in enumerate(value.axes):
                if a == lhs[1]:
                    continue
                if a in taps:
                    kept.append(a)
                    positions.append(math.prod(f.size for f in axis))
                else:
                    for f in axis:
                        kept.append(a)
                        positions.append(f.size)
            positions = tuple(positions)
            source = move_feature(feature, Index(feature.positions, index.reshape(positions)))
            count = sizes[1]
            gaussian = not (groups > 1 and sizes[1] == 1)
            others = {a: value.axes[a] for a in range(len(value.axes)) if a not in taps}
        order = sorted(range(len(kept)), key=lambda i: to_out[kept[i]])
        windows = Windows(positions, tuple(taps.get(a, "keep") for a in kept), tuple(order))
        leaves = frozenset([weights.leaf])
        if isinstance(source, Feature) and not gaussian:
            leaves = leaves.union(*(node.leaves for node in source.nodes))
        node = Product(
            windows.out,
            gaussian,
            leaves,
            weights.leaf,
            weights.scale.scalar(),
            variance * count,
            source,
            windows,
            _where(equation),
        )
        axes: list[tuple[Factor, ...]] = [()] * len(out)
        for a in lhs:
            if a in taps:
                axes[to_out[a]] = (Factor(False, taps[a].out),)
            elif a != lhs[1]:
                axes[to_out[a]] = others.get(a, ())
        (axes[out[1]],) = _made(weights, rhs[:1])
        squeezed = tuple(n for n in windows.out if n > 1)
        flat = Index(windows.out, np.arange(math.prod(windows.out)).reshape(squeezed))
        axes = [tuple(f for f in axis if f.size > 1) for axis in axes]
        width = sizes[0]
        return Random(tuple(axes), (Piece(width, node_feature(node), flat),))

    # Channels and positions side by side

    def _concatenate(self, equation: Equation, operands: list[Value]) -> Value:
        axis = equation.params["dimension" if equation.name == "concatenate" else "axis"]
        template = next((v for v in operands if isinstance(v, Random)), None)
        if template is None:
            raise UnsupportedError("weights side by side have no rule")
        values = []
        for v in operands:
            if isinstance(v, Weights):
                v = self._as_random(v, template)
            if not isinstance(v, Random):
                raise UnsupportedError("known and random channels side by side have no rule")
            values.append(v)
        if equation.name == "stack":
            values = [Random((*v.axes[:axis], (), *v.axes[axis:]), v.pieces) for v in values]
        return self._beside(axis, values)

    def _beside(self, axis: int, values: list[Random]) -> Random:
        others = [[x for a, x in enumerate(v.axes) if a != axis] for v in values]
        if any(_channels(other) != _channels(others[0]) for other in others):
            raise UnsupportedError("channels in different orders side by side have no rule")
        kinds = [[f.channel for f in v.axes[axis]] for v in values]
        if any(any(kind) for kind in kinds) and _channels(others[0]):
            raise UnsupportedError("groups (or heads) of channels side by side have no rule")
        if all(kind == [True] for kind in kinds):
            size = sum(v.axes[axis][0].size for v in values)
            axes = tuple((Factor(True, size),) if a == axis else x for a, x in enumerate(values[0].axes))
            return Random(axes, tuple(piece for v in values for piece in v.pieces))
        if any(any(kind) for kind in kinds):
            raise UnsupportedError("channels and positions side by side have no rule")
        sizes = [math.prod(f.size for f in v.axes[axis]) for v in values]
        axes = tuple(_position(sum(sizes)) if a == axis else x for a, x in enumerate(values[0].axes))
        cuts = _common_cuts(values)
        pieces = []
        for start, stop in cuts:
            parts = [_piece(v, start, stop) for v in values]
            inner = [_index_array(v, part.move) for v, part in zip(values, parts, strict=True)]
            positions = tuple(f.size for x in axes for f in x if not f.channel)
            if all(part.base is parts[0].base for part in parts):
                index = np.concatenate(inner, axis).reshape(positions)
                pieces.append(Piece(stop - start, parts[0].base, Index(parts[0].move.shape, index)))
                continue
            total = []
            for i, (v, part) in enumerate(zip(values, parts, strict=True)):
                nothing = [np.full(a.shape, -1) for a in inner]
                nothing[i] = np.arange(math.prod(v.positions)).reshape(inner[i].shape)
                move = Index(v.positions, np.concatenate(nothing, axis).reshape(positions))
                total.append(move_feature(part.feature, move))
            pieces.append(Piece(stop - start, algebra.add(total), _identity(positions)))
        return Random(axes, tuple(pieces))

    def _split(self, equation: Equation, operands: list[Value]) -> list[Value]:
        (value,) = operands
        if not isinstance(value, Random):
            raise UnsupportedError("weights that are split have no rule")
        axis, start = equation.params["axis"], 0
        found: list[Value] = []
        for size in equation.params["sizes"]:
            found.append(_slice(value, axis, start, start + size))
            start += size
        return found

    def _scan(self, equation: Equation, operands: list[Value]) -> list[Value]:
        first, second = equation.carry
        body, length = equation.body, equation.params["length"]
        assert body is not None
        constants, carry, stacked = operands[:first], operands[first:second], operands[second:]
        order = range(length - 1, -1, -1) if equation.params["reverse"] else range(length)
        outputs: dict[int, list[Value]] = {}
        for i in order:
            results = self.run(body, [*constants, *carry, *(_step(value, i) for value in stacked)])
            carry, outputs[i] = results[: len(carry)], results[len(carry) :]
        columns = zip(*(outputs[i] for i in range(length)), strict=True)
        return [*carry, *(self._stack(list(column)) for column in columns)]

    def _stack(self, values: list[Value]) -> Value:
        known = [v for v in values if isinstance(v, Known)]
        random = [v for v in values if isinstance(v, Random)]
        if len(known) == len(values):
            shape = np.broadcast_shapes(*(v.shape for v in known))
            return Known.apply(lambda *arrays: jnp.stack([jnp.broadcast_to(a, shape) for a in arrays]), *known)
        if len(random) < len(values):
            raise UnsupportedError("steps of a scan differ in kind")
        lifted = [Random((_position(1), *v.axes), v.pieces) for v in random]
        return lifted[0] if len(lifted) == 1 else self._beside(0, lifted)


def _where(equation: Equation) -> str:
    return f"`{equation.name}` at {equation.source}"


_DRAWN = (
    "random numbers that a network draws have a rule only as dropout of activations, with numbers of their own for all "
    "examples and channels"
)


def _draw(equation: Equation, operands: Sequence[Value], shape: tuple[int, ...]) -> Noise:
    (key,) = operands
    if not isinstance(key, Known) or key.batched or not is_concrete(key.arrays[0]):
        raise UnsupportedError("the key of random numbers must be known while the network is read")
    with jax.ensure_compile_time_eval():
        data = np.asarray(jax.random.key_data(key.arrays[0])).tobytes()
    bits = equation.params["bit_width"]
    return Noise((data, shape, bits), shape, bits, lambda bits: bits)


def _noise(equation: Equation, operands: Sequence[Value], shape: tuple[int, ...]) -> Noise:
    """An elementwise function of noise and of numbers."""
    noise = next(v for v in operands if isinstance(v, Noise))
    if equation.name == "broadcast_in_dim" and equation.params["broadcast_dimensions"] == tuple(range(len(shape))):
        return noise
    numbers = [v for v in operands if isinstance(v, Known) and v.is_static]
    if equation.name not in ELEMENTWISE | _BITWISE or len(numbers) < len(operands) - 1:
        raise UnsupportedError(_DRAWN)
    params = equation.primitive.get_bind_params(equation.params)

    def fn(bits: Array) -> Array:
        arrays = [v.fn(bits) if isinstance(v, Noise) else jnp.reshape(v.arrays[0], ()) for v in operands]  # pyright: ignore
        return equation.primitive.bind(*(jnp.broadcast_to(a, bits.shape) for a in arrays), **params)

    return noise._replace(fn=fn)


_BITWISE = {"bitcast_convert_type", "shift_left", "shift_right_arithmetic", "shift_right_logical"}


def _two_values(noise: Noise) -> tuple[tuple[float, float], float]:
    """The values of noise below and above a threshold of its bits, and the probability of the first."""
    first, last = 0, 2**noise.bits - 1
    values: tuple[float, float] | None = None
    while last - first > 1:
        grid = [first + (last - first) * i // _GRID for i in range(_GRID + 1)]
        with jax.ensure_compile_time_eval():
            entries = np.asarray(noise.fn(jnp.asarray(np.array(grid, f"uint{noise.bits}"))), float)
        values = values or (float(entries[0]), float(entries[-1]))
        changes = np.flatnonzero(np.diff(entries))
        if len(changes) != 1 or not np.all(np.isin(entries, values)):
            raise UnsupportedError(_DRAWN)
        first, last = grid[changes[0]], grid[changes[0] + 1]
    assert values is not None
    return values, last / 2**noise.bits


_GRID = 2**10


def _spread(template: Random, whole: Sequence[bool]) -> tuple[tuple[int, ...], Index]:
    """Positions of an array with size 1 along the other axes, and how they are copied to those of another."""
    own, index = [], np.zeros((), int)
    for axis, present in zip(template.axes, whole, strict=True):
        for size in (f.size for f in axis if not f.channel):
            index = index[..., None] * (size if present else 1) + (np.arange(size) if present else np.zeros(size, int))
            own += [size] if present else []
    return tuple(own), Index(tuple(own), index.reshape(template.positions))


def _at_every_channel(template: Random, node: Node, feature: Callable[[Node], Feature]) -> Random:
    """An array like another, of a node that is drawn for every channel."""
    pieces, start = [], 0
    for piece in template.pieces:
        shifted = shift_node(node, start) if start else node
        pieces.append(Piece(piece.size, feature(shifted), _identity(template.positions)))
        start += piece.size
    return Random(template.axes, tuple(pieces))


def _require_own_derivative(program: Program, equation: Equation) -> None:
    """Demands that a function's derivative rule agrees with the derivative of what it computes, as JAX's own do."""
    body, called = equation.body, equation.params["call_jaxpr"]
    assert body is not None
    if "/jax/_src/" in str(called.jaxpr.debug_info.func_filename).replace("\\", "/"):
        return
    rng, shapes = np.random.default_rng(0), [program.shape(atom) for atom in equation.inputs]
    dtypes = [aval.dtype for aval in called.in_avals]
    floating = [jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes]

    def by_rule(*values: Array) -> Any:
        with equation.context.manager:
            return equation.primitive.bind(*values, **equation.primitive.get_bind_params(equation.params))

    def by_program(*values: Array) -> Any:
        return evaluate(body, values)[0]

    with jax.ensure_compile_time_eval():
        values = [jnp.asarray(rng.normal(size=shape), dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]

        def gradients(fn: Callable[..., Any]) -> list[Array]:
            def of_floats(*floats: Array) -> Any:
                rest = iter(floats)
                return fn(*(next(rest) if f else v for f, v in zip(floating, values, strict=True)))

            outputs, pull_back = jax.vjp(of_floats, *(v for f, v in zip(floating, values, strict=True) if f))
            return pull_back([jnp.ones_like(output) for output in outputs])

        pairs = zip(gradients(by_rule), gradients(by_program), strict=True)
        alike = all(np.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in pairs)
    if not alike:
        raise UnsupportedError("its derivative rule differs from the derivative of what it computes")


def _position(size: int) -> tuple[Factor, ...]:
    return (Factor(False, size),) if size > 1 else ()


def _identity(positions: tuple[int, ...]) -> Index:
    return Index(positions, np.arange(math.prod(positions)).reshape(positions))


def _width(value: Random) -> int:
    return sum(piece.size for piece in value.pieces)


def _width_of(axes: Sequence[tuple[Factor, ...]]) -> int:
    return math.prod(f.size for axis in axes for f in axis if f.channel)


def _places(axes: Axes) -> list[list[int]]:
    """For every axis which of the positions it holds."""
    found, count = [], 0
    for axis in axes:
        own = sum(not f.channel for f in axis)
        found.append(list(range(count, count + own)))
        count += own
    return found


def _template(operands: Sequence[Value]) -> Random:
    values = [v for v in operands if isinstance(v, Random)]
    if any(v.axes != values[0].axes for v in values):
        raise UnsupportedError("arrays whose axes mean different things are combined entry by entry")
    return values[0]


def _common_cuts(values: Sequence[Random]) -> list[tuple[int, int]]:
    """Ranges of channels in which every value has one piece."""
    edges = {0}
    for v in values:
        edges |= set(np.cumsum([piece.size for piece in v.pieces]).tolist())
    ends = sorted(edges)
    return list(itertools.pairwise(ends))


def _piece(value: Random, start: int, stop: int) -> Piece:
    """The channels from `start` to `stop`, which lie in one piece."""
    begin = 0
    for piece in value.pieces:
        if begin <= start and stop <= begin + piece.size:
            if start == begin:
                return piece if stop - start == piece.size else dataclasses.replace(piece, size=stop - start)
            return Piece(stop - start, shift_feature(piece.base, start - begin), piece.move)
        begin += piece.size
    raise UnsupportedError("channels are taken apart differently")


def _cut(value: Random, start: int, stop: int) -> Feature:
    return _piece(value, start, stop).feature


def _positioned(value: Value, template: Random) -> Known:
    """A known array as numbers at the positions of a random one."""
    assert isinstance(value, Known)
    if value.is_scalar:
        return Known.apply(lambda a: jnp.reshape(a, (1,) * len(template.positions)), value)
    sizes: list[int] = []
    for axis, size in zip(template.axes, value.shape, strict=True):
        if size == 1:
            sizes += [1] * sum(not f.channel for f in axis)
        elif any(f.channel for f in axis):
            raise UnsupportedError(
                "known numbers that differ from channel to channel leave them differently distributed"
            )
        else:
            sizes += [f.size for f in axis]
    return Known.apply(lambda a: jnp.reshape(a, sizes), value)


def _regroup(
    axes: Sequence[tuple[tuple[Any, int], ...]],
    shape: tuple[int, ...],
    outer: Callable[[Any, int], Any] | None = None,
) -> list[list[tuple[Any, int]]]:
    """Factors (label, size) of the axes of a reshaped array; factors are split where they must be.

    The outer part of one that is split has the label `outer` (label, size of the inner part), by default the same.
    """
    factors = [f for axis in axes for f in axis]
    found: list[list[tuple[Any, int]]] = []
    for size in shape:
        own: list[tuple[Any, int]] = []
        left = size
        while left > 1:
            if not factors:
                raise UnsupportedError("copies of random numbers along an axis are reshaped")
            label, n = factors.pop(0)
            if left % n == 0:
                own.append((label, n))
                left //= n
            elif n % left == 0:
                own.append((outer(label, n // left) if outer else label, left))
                factors.insert(0, (label, n // left))
                left = 1
            else:
                raise UnsupportedError("an axis is reshaped across the boundary of channels and positions")
        found.append(own)
    return found


def _reshape(value: Random, shape: tuple[int, ...]) -> Random:
    """Channels that are taken apart know their strides; positions need none, for they are numbered."""
    labelled = [tuple(((f.channel, f.stride), f.size) for f in axis) for axis in value.axes]
    regrouped = _regroup(labelled, shape, lambda label, inner: (label[0], label[1] * inner if label[0] else 1))
    axes = tuple(_joined([Factor(c, n, stride) for (c, stride), n in axis]) for axis in regrouped)
    taken_apart = _channels(axes) != _channels(value.axes)
    if taken_apart and len(value.pieces) > 1:
        raise UnsupportedError("channels of several kinds side by side are taken apart into groups (or heads)")
    return _with_axes(value, axes, lambda array: array)


def _channels(axes: Sequence[tuple[Factor, ...]]) -> list[Factor]:
    return [f for axis in axes for f in axis if f.channel]


def _with_axes(value: Random, axes: Axes, change: Callable[[np.ndarray], np.ndarray]) -> Random:
    """The value with other axes; `change` acts on the array of position numbers."""
    positions = tuple(f.size for axis in axes for f in axis if not f.channel)

    def moved(piece: Piece) -> Piece:
        return Piece(piece.size, piece.base, Index(piece.move.shape, change(piece.move.index).reshape(positions)))

    return Random(axes, tuple(map(moved, value.pieces)))


def _transpose(value: Random, permutation: Sequence[int]) -> Random:
    places = _places(value.axes)
    order = [i for a in permutation for i in places[a]]
    return _with_axes(value, tuple(value.axes[a] for a in permutation), lambda array: array.transpose(order))


def _broadcast(value: Random, shape: tuple[int, ...], dimensions: Sequence[int]) -> Random:
    axes: list[tuple[Factor, ...]] = [_position(size) for size in shape]
    source = {d: i for i, d in enumerate(dimensions)}
    sizes = []
    for d, size in enumerate(shape):
        if d in source and (value.axes[source[d]] or size == 1):
            axes[d] = value.axes[source[d]]
            sizes += [(f.size, f.size) for f in axes[d] if not f.channel]
        else:
            sizes += [(1, f.size) for f in axes[d]]

    def change(array: np.ndarray) -> np.ndarray:
        return np.broadcast_to(array.reshape([n for n, _ in sizes]), [n for _, n in sizes])

    return _with_axes(value, tuple(axes), change)


def _with_rank(feature: Feature, rank: int) -> Feature:
    """A feature with more positions, of size 1."""
    shape = (*feature.positions, *(1,) * (rank - len(feature.positions)))
    return move_feature(feature, Index(feature.positions, np.arange(math.prod(shape)).reshape(shape)))


def _index_array(value: Random, move: Index) -> np.ndarray:
    """Position numbers of the base in the program's layout, channels with size 1."""
    shape = [math.prod(f.size for f in axis if not f.channel) for axis in value.axes]
    return move.index.reshape(shape)


def _copy(program: Program, equation: Equation, value: Random, others: list[Known]) -> Random:
    """Equations that move entries about: run on the numbers of the positions, and on those of the channels."""
    if any(not is_concrete(k.arrays[0]) or k.batched for k in others):
        raise UnsupportedError("which entries are taken depends on the inputs")
    if equation.name == "slice" and equation.params["strides"] in (None, (1,) * len(value.axes)):
        changed = [
            a
            for a, (start, stop) in enumerate(
                zip(equation.params["start_indices"], equation.params["limit_indices"], strict=True)
            )
            if (start, stop) != (0, program.shape(equation.inputs[0])[a])
        ]
        for a in changed:
            start, stop = equation.params["start_indices"][a], equation.params["limit_indices"][a]
            value = _slice(value, a, start, stop)
        return value
    if any(len({f.channel for f in axis}) > 1 for axis in value.axes):
        raise UnsupportedError("entries are picked out of channels that are mixed with other axes")
    shape = program.shape(equation.inputs[0])
    extra = [np.broadcast_to(k.arrays[0], program.shape(i)) for k, i in zip(others, equation.inputs[1:], strict=True)]
    if equation.name == "pad":
        if np.any(extra[0] != 0):
            raise UnsupportedError("positions are padded with a number other than 0")
        extra[0] = np.asarray(-1)

    def run(numbers: np.ndarray) -> np.ndarray:
        with jax.ensure_compile_time_eval():
            numbers = np.broadcast_to(numbers, shape).astype(np.int32)
            arrays = [jnp.asarray(e, jnp.int32) if e.dtype.kind in "iu" else jnp.asarray(e) for e in extra]
            params = dict(equation.params)
            if equation.name == "gather":
                params["fill_value"] = -1
            bind = equation.primitive.get_bind_params(params)
            return np.asarray(equation.primitive.bind(jnp.asarray(numbers), *arrays, **bind))

    count = math.prod(value.positions)
    own = [math.prod(f.size for f in axis if not f.channel) for axis in value.axes]
    places = run(np.arange(count).reshape(own))
    width = [math.prod(f.size for f in axis if f.channel) for axis in value.axes]
    total = math.prod(width)
    names = run(np.arange(total).reshape(width))
    kept = [a for a in range(names.ndim) if total > 1 and np.any(np.diff(names, axis=a)[_present(names, a)])]
    if [names.shape[a] for a in kept] != [w for w in width if w > 1]:
        raise UnsupportedError("channels are picked out one by one")
    numbers = np.arange(total).reshape([size if a in kept else 1 for a, size in enumerate(names.shape)])
    if np.any((names != numbers) & (names >= 0)):
        raise UnsupportedError("channels are put into another order, after which it matters which is which")
    channels = iter(axis for axis in value.axes if _channels([axis]))
    axes = [next(channels) if a in kept else _position(size) for a, size in enumerate(places.shape)]
    for a in kept:
        places = np.take(places, [0], a)
    return _moved(value, tuple(axes), places)


def _moved(value: Random, axes: Axes, places: np.ndarray) -> Random:
    """Copies of positions, numbered in the order of the axes; -1 for nothing."""
    positions = tuple(f.size for axis in axes for f in axis if not f.channel)
    move = Index((math.prod(value.positions),), places.reshape(positions))

    def moved(piece: Piece) -> Piece:
        if move.is_complete:
            return Piece(piece.size, piece.base, move.after(piece.move))
        whole = Index(piece.feature.positions, move.index)
        return Piece(piece.size, move_feature(piece.feature, whole), _identity(positions))

    return Random(axes, tuple(map(moved, value.pieces)))


def _patches(program: Program, equation: Equation, value: Random, filters: Known) -> Random:
    """The windows of every channel, cut out by filters that each take one entry."""
    params, (lhs, rhs, out) = equation.params, equation.params["dimension_numbers"]
    whole = np.asarray(filters.arrays[0]) if is_concrete(filters.arrays[0]) and not filters.batched else np.zeros(())
    groups, channel = params["feature_group_count"], value.axes[lhs[1]]
    taken = np.broadcast_to(whole, program.shape(equation.inputs[1])).transpose(rhs)
    cuts = taken.shape[1] == 1 and params["batch_group_count"] == 1 and channel == (Factor(True, groups),)
    if cuts:
        taken = taken.reshape(groups, -1, *taken.shape[2:])
        cuts = np.all(taken == taken[:1]) and np.all((taken == 0) | (taken == 1))
        cuts = cuts and np.all(taken.sum(tuple(range(2, taken.ndim))) == 1)
    if not cuts:
        raise UnsupportedError("a convolution with filters that are not weights has a rule only if it cuts out windows")
    numbers = _index_array(value, _identity(value.positions))
    windows = []
    for taps in np.argwhere(taken[0])[:, 1:]:
        window = numbers
        for i, (axis, tap) in enumerate(zip(lhs[2:], taps, strict=True)):
            spread = params["lhs_dilation"][i]
            place = np.arange(program.shape(equation.outputs[0])[out[2 + i]]) * params["window_strides"][i]
            place += tap * params["rhs_dilation"][i] - params["padding"][i][0]
            inside = (place >= 0) & (place % spread == 0) & (place // spread < numbers.shape[axis])
            window = np.take(window, np.where(inside, place // spread, 0), axis)
            window = np.where(inside.reshape([-1 if a == axis else 1 for a in range(window.ndim)]), window, -1)
        windows.append(window)
    places = np.concatenate(windows, lhs[1])
    order = [lhs[list(out).index(a)] for a in range(len(out))]
    axes = {a: _position(places.shape[a]) for a in lhs[2:]} | {lhs[0]: value.axes[lhs[0]]}
    axes[lhs[1]] = (*channel, *_position(len(windows)))
    return _moved(value, tuple(axes[a] for a in order), places.transpose(order))


def _present(names: np.ndarray, axis: int) -> np.ndarray:
    before = np.take(names, range(names.shape[axis] - 1), axis)
    after = np.take(names, range(1, names.shape[axis]), axis)
    return (before >= 0) & (after >= 0)


def _slice(value: Random, axis: int, start: int, stop: int) -> Random:
    """Entries from `start` to `stop` of one axis."""
    factors = value.axes[axis]
    size = math.prod(f.size for f in factors)
    if (start, stop) == (0, size):
        return value
    if any(f.channel for f in factors):
        if len(factors) > 1 or len(value.channels) > 1:
            raise UnsupportedError("channels that are mixed with other axes are cut")
        pieces, begin = [], 0
        for piece in value.pieces:
            low, high = max(start, begin), min(stop, begin + piece.size)
            if low < high:
                pieces.append(_piece(value, low, high))
            begin += piece.size
        axes = list(value.axes)
        axes[axis] = (Factor(True, stop - start),) if stop - start > 1 else ()
        return Random(tuple(axes), tuple(pieces))
    axes = list(value.axes)
    axes[axis] = _position(stop - start)
    shape = [math.prod(f.size for f in x if not f.channel) for x in value.axes]

    def change(array: np.ndarray) -> np.ndarray:
        return np.take(array.reshape(shape), range(start, stop), axis)

    return _with_axes(value, tuple(axes), change)


def _linear(
    equation: Equation,
    value: Random,
    shape: tuple[int, ...] | None,
    known: Known | None = None,
    slot: int = 0,
    axes: Axes | None = None,
) -> Random:
    """Linear maps of positions: the equation itself, for one channel."""
    own = [math.prod(f.size for f in axis if not f.channel) for axis in value.axes]
    params = equation.primitive.get_bind_params(equation.params)

    def run(array: Array, *others: Array) -> Array:
        operands = [array.reshape(own), *others]
        if slot == 1:
            operands.reverse()
        return equation.primitive.bind(*operands, **params)

    if axes is None:
        if equation.name == "reduce_sum":
            axes = tuple(axis for a, axis in enumerate(value.axes) if a not in equation.params["axes"])
        else:
            assert shape is not None
            grown = []
            for a, (axis, size) in enumerate(zip(value.axes, shape, strict=True)):
                if any(f.channel for f in axis):
                    if len(axis) != 1 or axis[0].size != size or not _keeps(equation, a):
                        raise UnsupportedError("windows over channels have no rule")
                    grown.append(axis)
                else:
                    grown.append(_position(size))
            axes = tuple(grown)
    positions = tuple(f.size for axis in axes for f in axis if not f.channel)

    def fn(array: Array, *others: Array) -> Array:
        return run(array, *others).reshape(positions)

    def moved(piece: Piece) -> Piece:
        feature = piece.feature
        move = Linear(feature.positions, positions, fn, known)
        return Piece(piece.size, move_feature(feature, move), _identity(positions))

    return Random(axes, tuple(map(moved, value.pieces)))


def _keeps(equation: Equation, axis: int) -> bool:
    """Whether a sum over windows leaves an axis as it is."""
    params = equation.params
    if equation.name == "cumsum":
        return params["axis"] != axis
    return params["window_dimensions"][axis] == 1 and tuple(params["padding"][axis]) == (0, 0)


def _step(value: Value, i: int) -> Value:
    """The slice of a scan's input for one step."""
    if isinstance(value, Known):
        return Known.apply(lambda a: a[min(i, a.shape[0] - 1)], value)
    if isinstance(value, Weights):
        return Weights((value.leaf, "step", i), value.axes[1:], value.scale)
    if not isinstance(value, Random):
        raise UnsupportedError(_DRAWN)
    taken = _slice(value, 0, i, i + 1) if value.axes[0] else value
    return Random(taken.axes[1:], taken.pieces)


def _weights_rule(equation: Equation, value: Weights, shape: tuple[int, ...]) -> Weights:
    name = equation.name
    if name == "transpose":
        return value._replace(axes=tuple(value.axes[a] for a in equation.params["permutation"]))
    if name in {"reshape", "squeeze", "expand_dims"}:
        return value._replace(axes=tuple(map(tuple, _regroup(value.axes, shape, _outer))))
    if name == "broadcast_in_dim":
        source = {d: i for i, d in enumerate(equation.params["broadcast_dimensions"])}
        return value._replace(axes=tuple(value.axes[source[d]] if d in source else () for d in range(len(shape))))
    raise UnsupportedError("there is no rule for this primitive on weights")


def _outer(label: Any, inner: int) -> tuple[int, int]:
    number, stride = label if isinstance(label, tuple) else (label, 1)
    return number, stride * inner


def _cuts(part: Hashable) -> tuple[Hashable, tuple]:
    """The leaf that a name is of a part of, and which part."""
    if not isinstance(part, tuple):
        return part, ()
    leaf, cuts = _cuts(part[0])
    return leaf, (*cuts, part[1:])


def _overlap(first: tuple, second: tuple) -> bool:
    """Whether two parts of a leaf have entries in common without being the same."""
    for (kind, *a), (other, *b) in zip(first, second, strict=False):
        if (kind, a) == (other, b):
            continue
        apart = kind == other and (kind == "step" or a[1] <= b[0] or b[1] <= a[0])
        return not apart
    return len(first) != len(second)


def _place(factor: tuple[Any, int]) -> tuple[int, int]:
    """Sorts parts of the axes of a leaf in the order in which they are in it."""
    number, stride = factor[0] if isinstance(factor[0], tuple) else (factor[0], 1)
    return number, -stride


def _made(weights: Weights, axes: Sequence[int]) -> list[tuple[Factor, ...]]:
    """The channels that axes of weights become."""
    stride, strides = 1, {}
    for factor in sorted((f for a in axes for f in weights.axes[a]), key=_place, reverse=True):
        strides[factor] = stride
        stride *= factor[1]
    return [_joined([Factor(True, f[1], strides[f]) for f in weights.axes[a]]) for a in axes]


def _outside(axes: Axes, channels: Sequence[Factor], width: int) -> Axes:
    """Axes of which some channels are kept, each of them now so many channels wide."""
    strides = {}
    for f in sorted(channels, key=lambda f: f.stride):
        strides[f] = width
        width *= f.size
    return tuple(tuple(f._replace(stride=strides.get(f, f.stride)) for f in axis) for axis in axes)


def _paired(weights: Weights, axes: Sequence[int], others: Sequence[int]) -> tuple[list, list[int]]:
    """The parts of a leaf that axes of weights are, and the axes that these are paired with, in the leaf's order."""
    pairs = sorted(([_place(f) for f in weights.axes[a]], a, b) for a, b in zip(axes, others, strict=True))
    return [weights.axes[a] for _, a, _ in pairs if weights.axes[a]], [b for *_, b in pairs]


def _joined(axis: Sequence[Factor]) -> tuple[Factor, ...]:
    """An axis whose channels are put together again where they are in order."""
    found: list[Factor] = []
    for factor in axis:
        last = found[-1] if found else Factor(False, 0)
        if last.channel and factor.channel and last.stride == factor.size * factor.stride:
            found[-1] = Factor(True, last.size * factor.size, factor.stride)
        else:
            found.append(factor)
    return tuple(found)


def _require_inner(summed: Sequence[Factor], kept: Sequence[Factor]) -> None:
    """Demands that of channels that are taken apart the inner ones are summed: those are what grows."""
    largest = max((f.stride for f in summed if f.channel), default=0)
    if any(f.channel and f.stride < largest for f in kept):
        raise UnsupportedError("a sum over groups (or heads) of channels, whose number does not grow with the width")


def _require_whole(weights: Weights, shape: tuple[int, ...], axes: Sequence[int]) -> None:
    if any(weights.size(a) != shape[a] for a in axes):
        raise UnsupportedError("copies of the same weights along an axis depend on each other")


def _scale_weights(name: str, operands: list[Value]) -> Value:
    """Weights times or divided by a number."""
    weights = [v for v in operands if isinstance(v, Weights)]
    others = [v for v in operands if isinstance(v, Known)]
    if name == "neg" and len(weights) == 1:
        return weights[0]._replace(scale=Known.apply(jnp.negative, weights[0].scale))
    if len(weights) == 1 and len(others) == 1 and others[0].is_scalar:
        number = Known.apply(lambda a: jnp.reshape(a, ()), others[0])
        if name == "mul":
            return weights[0]._replace(scale=weights[0].scale * number)
        if name == "div" and isinstance(operands[0], Weights):
            return weights[0]._replace(scale=Known.apply(jnp.divide, weights[0].scale, number))
        if name in {"add", "sub"} and others[0].is_number(0.0):
            first = name == "add" or isinstance(operands[0], Weights)
            return weights[0] if first else _scale_weights("neg", [weights[0]])
    raise UnsupportedError("weights are combined entry by entry with something other than a number")


def _vanish(program: Program, equation: Equation, operands: list[Value]) -> Value:
    value = next(v for v in operands if isinstance(v, Vanishing))
    others = [v for v in operands if isinstance(v, Known)]
    if equation.name in {"reshape", "squeeze", "broadcast_in_dim", "transpose", "convert_element_type", "neg"}:
        (zeros,) = _known_equation(program, equation, [value.zeros])
        return Vanishing(value.width, zeros)
    if equation.name in {"mul", "div"} and len(others) == 1 and others[0].is_static:
        number = float(np.asarray(others[0].arrays[0]).reshape(()))
        number = 1 / number if equation.name == "div" else number
        if abs(number) * value.width <= 1.01:
            return value.zeros
    raise UnsupportedError(
        "a sum of independent terms of mean 0 over channels vanishes beside the width, by which it must be divided at "
        "once; divided by its root (as scores of attention are) it stays random, and there is no rule for what follows"
    )


def _factor(feature: Feature) -> float:
    """The largest number by which the functions in a feature are multiplied, at most 1."""
    factors = [abs(float(term.factor.scalar())) if term.factor.is_static else 1.0 for term in feature.terms]
    return min(1.0, max(factors, default=1.0))


def _settled(value: Total) -> Value:
    """What a sum is once it has been divided by what it grows with."""
    size = abs(value.factor) * value.width**value.power
    done = value.power == 0 or (size <= _ROUGHLY if value.power > 0 else size >= 1 / _ROUGHLY)
    return value.known if done else value


_ROUGHLY = 1.1  # such as the width that is reduced by 1
_SMALL = 1e-3  # what is added so that nothing is divided by 0


def _divided(equation: Equation, operands: Sequence[Value]) -> list[Value] | None:
    """The operands of a division of an array by its norm."""
    powers = [v.power if isinstance(v, Total) else 0.0 for v in operands]
    if not any(isinstance(v, Random) for v in operands):
        return None
    by_norm = (equation.name == "div" and powers == [0.0, 0.5]) or (equation.name == "mul" and sum(powers) == -0.5)
    if not by_norm:
        raise UnsupportedError(_UNDIVIDED)
    return [v.known if isinstance(v, Total) else v for v in operands]


def _total(program: Program, equation: Equation, operands: Sequence[Value]) -> Value:
    """Operations after which it is known with which power of the width a sum grows."""
    name, totals = equation.name, [v for v in operands if isinstance(v, Total)]
    others = [v for v in operands if isinstance(v, Known)]
    if len(totals) + len(others) < len(operands):
        raise UnsupportedError(_UNDIVIDED)
    numbers = [float(v.scalar()) for v in others if v.is_static]
    first = totals[0]
    known = [v.known if isinstance(v, Total) else v for v in operands]
    (result,) = _known_equation(program, equation, known)  # pyright: ignore[reportArgumentType]
    found = first._replace(known=result, width=max(v.width for v in totals))
    if name in _HOMOGENEOUS and len(operands) == 1:
        return found
    if name in {"mul", "div"}:
        signs = (1, -1 if name == "div" else 1)
        power, factor = 0.0, 1.0
        for v, sign in zip(operands, signs, strict=True):
            if isinstance(v, Total):
                power, factor = power + sign * v.power, factor * v.factor**sign
            elif numbers:
                factor = factor * numbers[0] ** sign if numbers[0] else 0.0
        return _settled(found._replace(power=power, factor=factor))
    exponents = {"sqrt": 0.5, "rsqrt": -0.5, "square": 2.0, "integer_pow": equation.params.get("y")}
    exponent = numbers[0] if name == "pow" and numbers and operands[0] is first else exponents.get(name)
    if exponent is not None:
        return _settled(found._replace(power=first.power * exponent, factor=abs(first.factor) ** exponent))
    alike = all(v.power == first.power and v.factor == first.factor for v in totals)
    small = len(numbers) == len(others) and all(abs(number) <= _SMALL for number in numbers)
    if name in {"add", "add_any", "sub", "max"} and first.power > 0 and alike and small:
        return found
    raise UnsupportedError(_UNDIVIDED)


_HOMOGENEOUS = {
    *("reshape", "squeeze", "expand_dims", "broadcast_in_dim", "transpose", "slice", "convert_element_type", "copy"),
    *("reduce_precision", "real", "neg", "abs", "reduce_sum", "reduce_max", "reduce_min"),
}
_UNDIVIDED = (
    "a sum over channels grows with the width, by which it must be divided before anything else is done with it; "
    "divided by its root (as scores of attention are) it still grows"
)


def _as_written(program: Program, atom: Operand, value: Known) -> Known:
    """A value in the floating-point type that it has in the program."""
    if isinstance(atom, Constant):
        return value
    dtype = program.shapes[atom].dtype
    if value.arrays[0].dtype == dtype or not jnp.issubdtype(dtype, jnp.floating):
        return value
    return Known(tuple(array.astype(dtype) for array in value.arrays), value.batched)


def _known_equation(program: Program, equation: Equation, operands: list[Known]) -> list[Known]:
    """Evaluates what is known, keeping axes of size 1 where a value is constant."""
    name, params = equation.name, equation.params
    shape = program.shapes[equation.outputs[0]].shape
    rank = len(shape)
    bind = equation.primitive.get_bind_params(params)
    operands = [_as_written(program, atom, value) for atom, value in zip(equation.inputs, operands, strict=True)]
    if name in ELEMENTWISE:

        def fn(*arrays: Array) -> Array:
            size = np.broadcast_shapes(*(np.shape(a) for a in arrays))
            size = (1,) * (rank - len(size)) + size
            return equation.primitive.bind(*(jnp.broadcast_to(jnp.asarray(a), size) for a in arrays), **bind)

        return [Known.apply(fn, *operands)]
    if name == "broadcast_in_dim" and len(operands) == 1:
        source = params["broadcast_dimensions"]

        def widen(array: Array) -> Array:
            size = [1] * rank
            for i, d in enumerate(source):
                size[d] = array.shape[i]
            return jnp.reshape(array, size)

        return [Known.apply(widen, operands[0])]
    if name in {"reshape", "squeeze", "expand_dims"}:
        whole = program.shape(equation.inputs[0])
        actual = operands[0].shape
        axes = [((a == w, w),) if w > 1 else () for a, w in zip(actual, whole, strict=True)]
        try:
            regrouped = _regroup(axes, shape)
        except UnsupportedError:
            regrouped = None
        if regrouped is not None and all(len({flag for flag, _ in axis}) <= 1 for axis in regrouped):
            size = [math.prod(n for flag, n in axis if flag) for axis in regrouped]
            return [Known.apply(lambda a: jnp.reshape(a, size), operands[0])]
    if name == "transpose":
        return [Known.apply(lambda a: jnp.transpose(a, params["permutation"]), operands[0])]
    shapes = [program.shape(atom) for atom in equation.inputs]
    if name in {"reduce_sum", "reduce_max", "reduce_min"}:
        sizes = zip(shapes[0], operands[0].shape, strict=True)
        shapes = [tuple(whole if a in params["axes"] else size for a, (whole, size) in enumerate(sizes))]
    results: dict[int, Known] = {}
    count = len(equation.outputs)

    def run(*arrays: Array) -> Any:
        whole = [jnp.broadcast_to(jnp.asarray(a), s) for a, s in zip(arrays, shapes, strict=True)]
        out = equation.primitive.bind(*whole, **bind)
        return tuple(out) if equation.primitive.multiple_results else (out,)

    for i in range(count):
        results[i] = Known.apply(lambda *arrays, i=i: run(*arrays)[i], *operands)
    return [results[i] for i in range(count)]
