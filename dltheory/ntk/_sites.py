"""Where a network uses its parameters, and what its Jacobian factorises into there.

A parameter that enters the network through a matrix product `y = x W` has the Jacobian `sum_t x_t (x) g_t`, where `g`
is the derivative of the outputs with respect to `y` and `t` runs over whatever shares the weights: positions, time
steps, several uses of one parameter. The same form covers convolutions (`x` is the patch under the filter), biases
(`x = 1`), embeddings (`x` is the indicator of the token), layers stacked by a scan (a block for each step), and, with
`x = 1` and the parameter itself in place of `y`, everything else: the explicit Jacobian.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from dltheory._axes import follow_axis
from dltheory._programs import Atom, Constant, Equation, Program

__all__ = ["Factor", "Feature", "Scale", "Site", "find_bottleneck", "find_factors"]


@dataclasses.dataclass(frozen=True)
class Scale:
    """A scalar on the way from a parameter to the site: multiply by `value ** power`."""

    value: Atom
    power: int


_MINUS = Scale(Constant(-1.0), 1)


@dataclasses.dataclass(frozen=True)
class Site:
    """A number of the program whose derivative is the `g` of a use, and the parts its axes play.

    Axes count the steps of the scans around it first.

    Attributes:
        number: the number in the program.
        blocks: axes along which the parameter has separate blocks.
        shared: axes that share the parameter.
        features: axes of the outputs of the parameter.
        groups: separate blocks that `features` splits into (a grouped convolution).
    """

    number: int
    blocks: tuple[int, ...]
    shared: tuple[int, ...]
    features: tuple[int, ...]
    groups: int = 1


@dataclasses.dataclass(frozen=True)
class Feature:
    """The `x` of a use.

    Attributes:
        kind: "array" (the other side of a product), "patches" (of a convolution), "tokens" (of an embedding) or "ones".
        source: the number that holds it; None for ones.
        width: size of `x` at one position, e.g. inputs of a layer, or the vocabulary.
        scales: scalars to multiply it by.
        axes: for arrays, their axes in the order blocks, shared, contracted; those of scans are left out.
        blocks: how many of `axes` are blocks.
        contracted: how many of `axes` are contracted.
        settings: what the kind needs: the equation's parameters and the shape of the filter.
        stacked: which of the scans around give each step its own block; the others share.
    """

    kind: str
    source: int | None
    width: int
    scales: tuple[Scale, ...] = ()
    axes: tuple[int, ...] = ()
    blocks: int = 0
    contracted: int = 0
    settings: Any = dataclasses.field(default=None, compare=False)
    stacked: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Factor:
    """Sites that some parameters share: the Jacobian of each is the sum over sites of its feature times the gradient.

    Attributes:
        sites: the sites.
        rows: for each parameter its features, one for each site.
    """

    sites: tuple[Site, ...]
    rows: tuple[tuple[Feature, ...], ...]

    def sources(self) -> set[int]:
        """Numbers whose values the features are made of."""
        features = [feature for row in self.rows for feature in row]
        scales = [scale.value for feature in features for scale in feature.scales]
        return {atom for atom in [*(feature.source for feature in features), *scales] if isinstance(atom, int)}


@dataclasses.dataclass(frozen=True)
class _Chain:
    """A value that is a parameter up to layout and scalars."""

    leaf: int
    layout: tuple[Any, ...] = ()
    scales: tuple[Scale, ...] = ()
    stacked: tuple[int, ...] = ()

    def moved(self, *step: Any) -> _Chain:
        return dataclasses.replace(self, layout=(*self.layout, step))


@dataclasses.dataclass(frozen=True)
class _Use:
    """A use that factorises; uses with equal keys see the parameter's entries in the same arrangement."""

    key: Any
    site: Site
    feature: Feature


def find_factors(program: Program, leaves: Sequence[int], *, explicit: bool = False) -> list[Factor]:
    """Factors of the Jacobian with respect to some inputs of a program; an input without influence has none.

    Args:
        program: the network at one input.
        leaves: positions of the parameters among the program's inputs.
        explicit: takes every Jacobian entry by entry.
    """
    search = _Search(program)
    search.walk(program, {program.inputs[leaf]: _Chain(leaf) for leaf in leaves}, depth=0)
    rows: dict[tuple[Site, ...], list[tuple[Feature, ...]]] = {}
    biases: list[_Use] = []
    for leaf in leaves:
        uses = search.uses[leaf]
        known = [use for use in uses if use is not None]
        if not uses:
            continue
        if explicit or len(known) < len(uses) or len({use.key for use in known}) > 1:
            rows[(_whole(program, leaf),)] = [(Feature("ones", None, 1),)]
        elif known[0].feature.kind == "ones" and len(known) == 1:
            biases += known
        else:
            rows.setdefault(tuple(use.site for use in known), []).append(tuple(use.feature for use in known))
    for bias in biases:  # a bias is one more input of the product it is added to
        home = next((sites for sites in rows if len(sites) == 1 and _alike(sites[0], bias.site)), (bias.site,))
        rows.setdefault(home, []).append((bias.feature,))
    return [Factor(sites, tuple(found)) for sites, found in rows.items()]


def _whole(program: Program, leaf: int) -> Site:
    number = program.inputs[leaf]
    return Site(number, (), (), tuple(range(len(program.shape(number)))))


def _alike(product: Site, bias: Site) -> bool:
    """Whether a bias can join a product: it sums over the same axes of the same number."""
    return product.number == bias.number and product.shared == bias.shared


def find_bottleneck(program: Program, site: Site) -> int | None:
    """The number, with one entry for each feature of a site, through which alone the site reaches the outputs.

    Every entry of it depends on its own feature only, as after a pooling of channels. The gradient at the site is then
    the gradient there times a diagonal.
    """
    if len(site.features) != 1 or site.blocks or site.groups > 1 or site.number not in _written(program):
        return None
    (channel,) = site.features
    size = program.shapes[site.number].shape[channel]
    axes, _ = follow_axis(program, {site.number: channel})
    last = {atom: i for i, equation in enumerate(program.equations) for atom in equation.inputs}
    last |= dict.fromkeys(program.outputs, len(program.equations))
    waiting = {site.number}  # what has been computed from the site and is still to be read
    for i, equation in enumerate(program.equations):
        if not waiting.intersection(equation.inputs):
            continue
        waiting = {number for number in waiting if last[number] > i} | {n for n in equation.outputs if n in last}
        if not all(isinstance(axes.get(number), int) for number in waiting):
            return None
        if len(waiting) == 1 and math.prod(program.shapes[next(iter(waiting))].shape) == size:
            return next(iter(waiting))
    return None


def _written(program: Program) -> set[int]:
    return {number for equation in program.equations for number in equation.outputs}


class _Search:
    """Follows parameters through a program to where they are used."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.uses: dict[int, list[_Use | None]] = collections.defaultdict(list)  # None: it does not factorise

    def walk(self, program: Program, chains: dict[int, _Chain], depth: int) -> None:
        """Notes every use of the chains in a program inside `depth` scans, and in the scans inside it."""
        readers = collections.defaultdict(list)
        for equation in program.equations:
            for atom in equation.inputs:
                readers[atom].append(equation)
        for equation in program.equations:
            atoms = enumerate(equation.inputs)
            held = {i: chains[atom] for i, atom in atoms if isinstance(atom, int) and atom in chains}
            if not held:
                continue
            if equation.steps is not None:
                self.enter(equation, held, depth)
                continue
            if len(held) == 1 and (moved := self.relayout(equation, *next(iter(held.items())))) is not None:
                chains[equation.outputs[0]] = moved
                continue
            use = self.use(equation, *next(iter(held.items())), depth) if len(held) == 1 else None
            found = None if use is None else self.descend(use, program, readers, depth)
            for chain in held.values():
                self.uses[chain.leaf].append(found)
        for atom in program.outputs:
            if isinstance(atom, int) and atom in chains:
                self.uses[chains[atom].leaf].append(None)

    def enter(self, equation: Equation, held: Mapping[int, _Chain], depth: int) -> None:
        """Goes on in the body of a scan with the parameters that its steps share and with those it slices."""
        body = equation.steps
        assert body is not None
        first, second = equation.carry
        inner = {}
        for position, chain in held.items():
            if first <= position < second:
                self.uses[chain.leaf].append(None)  # the steps change it
                continue
            if position >= second:
                chain = dataclasses.replace(chain.moved("sliced"), stacked=(*chain.stacked, depth))
            inner[body.inputs[position]] = chain
        if inner:
            self.walk(body, inner, depth + 1)

    def relayout(self, equation: Equation, position: int, chain: _Chain) -> _Chain | None:
        """The parameter after an equation that only rearranges or scales it."""
        name, params = equation.name, equation.params
        before, after = self.program.shape(equation.inputs[position]), self.program.shapes[equation.outputs[0]]
        if name in {"reshape", "squeeze"} or (
            name == "broadcast_in_dim" and math.prod(before) == math.prod(after.shape)
        ):
            return chain.moved("reshape", after.shape)
        if name in {"transpose", "rev"}:
            return chain.moved(name, tuple(params["permutation" if name == "transpose" else "dimensions"]))
        if name == "copy" or (name == "convert_element_type" and jnp.issubdtype(after.dtype, jnp.floating)):
            return chain
        scale = self.scale(equation, position)
        return None if scale is None else dataclasses.replace(chain, scales=(*chain.scales, scale))

    def scale(self, equation: Equation, position: int) -> Scale | None:
        """The scalar by which an equation multiplies its input at `position`, if that is all it does."""
        if equation.name == "neg":
            return _MINUS
        if equation.name not in {"mul", "div"} or (equation.name == "div" and position == 1):
            return None
        atom, other = equation.inputs[position], equation.inputs[1 - position]
        same_shape = self.program.shape(atom) == self.program.shapes[equation.outputs[0]].shape
        if other == atom or not same_shape or math.prod(self.program.shape(other)) != 1:
            return None
        return Scale(other, 1 if equation.name == "mul" else -1)

    def use(self, equation: Equation, position: int, chain: _Chain, depth: int) -> _Use | None:
        """What an equation does with a parameter, if its Jacobian factorises there."""
        if equation.name == "dot_general":
            return self.product(equation, position, chain, depth)
        if equation.name == "conv_general_dilated" and position == 1:
            return self.convolution(equation, chain, depth)
        if equation.name == "gather" and position == 0:
            return self.embedding(equation, chain, depth)
        if equation.name in {"add", "sub"}:
            return self.bias(equation, position, chain, depth)
        return None

    def product(self, equation: Equation, position: int, chain: _Chain, depth: int) -> _Use | None:
        source = equation.inputs[1 - position]
        if not isinstance(source, int):
            return None
        contract, batch = equation.params["dimension_numbers"]
        pairs = sorted(zip(contract[position], contract[1 - position], strict=True))
        own_contracted, contracted = tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)
        blocks = tuple(batch[1 - position])
        shape = self.program.shape(equation.inputs[position])
        free = tuple(a for a in range(len(self.program.shape(source))) if a not in (*blocks, *contracted))
        start, num_features = len(blocks), len(shape) - len(blocks) - len(contracted)
        first = start if position == 0 else start + len(free)
        features = tuple(range(first, first + num_features))
        shared = tuple(a for a in range(start, start + len(free) + num_features) if a not in features)
        feature = Feature(
            "array",
            source,
            math.prod(shape[a] for a in own_contracted),
            chain.scales,
            axes=(*blocks, *free, *contracted),
            blocks=len(blocks),
            contracted=len(contracted),
            stacked=chain.stacked,
        )
        key = ("product", chain.layout, chain.stacked, tuple(batch[position]), own_contracted)
        return _Use(key, _site(equation, depth, chain, tuple(range(start)), shared, features), feature)

    def convolution(self, equation: Equation, chain: _Chain, depth: int) -> _Use | None:
        params, source = equation.params, equation.inputs[0]
        if params["batch_group_count"] != 1 or not isinstance(source, int):
            return None
        channel = params["dimension_numbers"].out_spec[1]
        rank = len(params["dimension_numbers"].out_spec)
        shape = self.program.shape(equation.inputs[1])
        width = math.prod(shape) // shape[params["dimension_numbers"].rhs_spec[0]]
        feature = Feature("patches", source, width, chain.scales, settings=(params, shape), stacked=chain.stacked)
        shared, groups = tuple(axis for axis in range(rank) if axis != channel), params["feature_group_count"]
        key = ("convolution", chain.layout, chain.stacked, params["dimension_numbers"].rhs_spec, groups)
        site = _site(equation, depth, chain, (), shared, (channel,), groups)
        return _Use(key, site, feature)

    def embedding(self, equation: Equation, chain: _Chain, depth: int) -> _Use | None:
        numbers, table = equation.params["dimension_numbers"], self.program.shape(equation.inputs[0])
        source = equation.inputs[1]
        looks_up_rows = (
            tuple(numbers.collapsed_slice_dims) == tuple(numbers.start_index_map) == (0,)
            and not numbers.operand_batching_dims
            and tuple(equation.params["slice_sizes"]) == (1, *table[1:])
        )
        if not looks_up_rows or not isinstance(source, int):
            return None
        features = tuple(numbers.offset_dims)
        shared = tuple(a for a in range(len(self.program.shapes[equation.outputs[0]].shape)) if a not in features)
        feature = Feature(
            "tokens", source, table[0], chain.scales, settings=equation.params["mode"], stacked=chain.stacked
        )
        key = ("embedding", chain.layout, chain.stacked)
        return _Use(key, _site(equation, depth, chain, (), shared, features), feature)

    def bias(self, equation: Equation, position: int, chain: _Chain, depth: int) -> _Use | None:
        own = self.program.shape(equation.inputs[position])
        whole = self.program.shapes[equation.outputs[0]].shape
        if len(own) != len(whole):
            return None
        scales = (*chain.scales, _MINUS) if equation.name == "sub" and position == 1 else chain.scales
        shared = tuple(axis for axis in range(len(whole)) if own[axis] != whole[axis])
        features = tuple(axis for axis in range(len(whole)) if axis not in shared)
        feature = Feature("ones", None, 1, scales, stacked=chain.stacked)
        key = ("bias", chain.layout, chain.stacked, own)
        return _Use(key, _site(equation, depth, chain, (), shared, features), feature)

    def descend(self, use: _Use, program: Program, readers: Mapping[Atom, list[Equation]], depth: int) -> _Use:
        """Moves a site along sums and scalars to the last number with the same derivative, where other uses join it."""
        number, scales = use.site.number, use.feature.scales
        shape, dtype = program.shapes[number].shape, program.shapes[number].dtype
        while number not in program.outputs and len(readers[number]) == 1:
            (equation,) = readers[number]
            after = program.shapes[equation.outputs[0]]
            if (after.shape, after.dtype) != (shape, dtype):
                break
            position = equation.inputs.index(number)
            if (scale := self.scale(equation, position)) is not None:
                scales = (*scales, scale)
            elif equation.name == "sub" and position == 1:
                scales = (*scales, _MINUS)
            elif equation.name not in {"add", "sub"}:
                break
            number = equation.outputs[0]

        def sized(axes: tuple[int, ...]) -> tuple[int, ...]:
            """Without the axes of size one, so that uses that agree on the others meet."""
            return tuple(axis for axis in axes if axis < depth or shape[axis - depth] != 1)

        blocks, shared, features = map(sized, (use.site.blocks, use.site.shared, use.site.features))
        site = Site(number, blocks, shared, features, use.site.groups)
        return dataclasses.replace(use, site=site, feature=dataclasses.replace(use.feature, scales=scales))


def _site(
    equation: Equation,
    depth: int,
    chain: _Chain,
    blocks: tuple[int, ...],
    shared: tuple[int, ...],
    features: tuple[int, ...],
    groups: int = 1,
) -> Site:
    """The site at an equation's output; the steps of the scans around are blocks where they slice the parameter."""
    steps = tuple(axis for axis in range(depth) if axis not in chain.stacked)
    blocks, shared, features = (tuple(depth + axis for axis in axes) for axes in (blocks, shared, features))
    return Site(equation.outputs[0], (*chain.stacked, *blocks), (*steps, *shared), features, groups)
