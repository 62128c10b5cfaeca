"""What an infinitely wide network is made of: Gaussian nodes, and elementwise functions of them.

A pre-activation is a centred Gaussian, independent and identically distributed along the channels; only its covariance
between positions and between inputs is of interest. A `Node` says how a Gaussian arises from weights and from the nodes
below, a `Feature` is a sum of products of elementwise functions of nodes. Both are symbolic: `moments` evaluates them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterable

import jax
import jax.numpy as jnp
import numpy as np

from dltheory.infinite_width._elementwise import Elementwise
from dltheory.infinite_width._functions import elementwise
from dltheory.infinite_width._known import Known
from dltheory.infinite_width._positions import Index, PositionMap, Windows
from dltheory.typing import Array

__all__ = [
    "Atom",
    "Bias",
    "Feature",
    "Mask",
    "Moved",
    "Node",
    "Product",
    "Scaled",
    "Shifted",
    "Source",
    "Sum",
    "Term",
    "Wrapped",
    "is_mask",
    "move_feature",
    "move_node",
    "node_feature",
    "scale_node",
    "shift_feature",
    "sum_nodes",
]

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """A random quantity along the channels, at `positions`.

    Attributes:
        positions: sizes of its position axes.
        gaussian: whether it is Gaussian; other nodes can only be used linearly.
        leaves: the parameters that it depends on at given statistics of the layers below: nodes without a common one
            are independent.
    """

    positions: Shape
    gaussian: bool
    leaves: frozenset[Hashable]

    @property
    def centred(self) -> bool:
        """Whether its mean is 0."""
        return True

    @functools.cached_property
    def memory(self) -> dict[Hashable, Node]:
        """What was made of it: the same, made again, is the same node."""
        return {}


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """What weights are multiplied with, if it is known.

    Attributes:
        rows: of each example [*positions, d], of which d is summed.
        labels: whether they are instead the numbers [*positions, 1] of the rows of weights that are taken.
    """

    rows: Known
    labels: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Product(Node):
    """A sum of a feature times independent weights over channels and taps: a layer without its bias.

    Attributes:
        leaf: the weights.
        scale: a number times the weights.
        variance: variance of a weight times the number of channels.
        source: what is multiplied.
        windows: which positions of the source meet at an output position.
        where: the operation, for messages.
    """

    leaf: Hashable
    scale: Array | float
    variance: Array | float
    source: Feature | Source
    windows: Windows
    where: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Bias(Node):
    """Weights that are added, independent between positions."""

    leaf: Hashable
    scale: Array | float
    variance: Array | float


@dataclasses.dataclass(frozen=True, eq=False)
class Mask(Node):
    """Numbers 0 and 1 that are drawn for every channel, position and example: which of them dropout keeps.

    Attributes:
        rate: probability of 1.
    """

    rate: float

    @property
    def centred(self) -> bool:
        """Whether its mean is 0."""
        return False


@dataclasses.dataclass(frozen=True, eq=False)
class Sum(Node):
    """A sum of nodes."""

    parts: tuple[Node, ...]

    @property
    def centred(self) -> bool:
        """Whether its mean is 0."""
        return all(part.centred for part in self.parts)


@dataclasses.dataclass(frozen=True, eq=False)
class Scaled(Node):
    """A node times a known number at every position."""

    node: Node
    factor: Known

    @property
    def centred(self) -> bool:
        """Whether its mean is 0."""
        return self.node.centred


@dataclasses.dataclass(frozen=True, eq=False)
class Shifted(Node):
    """The node of the channel `offset` further on, which is independent of that of the channel itself."""

    node: Node
    offset: int

    @property
    def centred(self) -> bool:
        """Whether its mean is 0."""
        return self.node.centred


@dataclasses.dataclass(frozen=True, eq=False)
class Moved(Node):
    """A linear map of a node's positions."""

    node: Node
    move: PositionMap

    @property
    def centred(self) -> bool:
        """Whether its mean is 0."""
        return self.node.centred


@dataclasses.dataclass(frozen=True, eq=False)
class Wrapped(Node):
    """A feature where only a node will do: it is not Gaussian."""

    feature: Feature

    @property
    def centred(self) -> bool:
        """Whether its mean is 0."""
        return False


_FUNCTIONS: dict[tuple, Elementwise] = {}  # by program, in either precision


def _itself(u: Array) -> Array:
    return u


@dataclasses.dataclass(frozen=True, eq=False)
class Atom:
    """An elementwise function of one or two nodes and of known numbers.

    Attributes:
        nodes: the nodes.
        fn: (nodes, known numbers) -> value; None for a node itself.
        params: the known numbers, which broadcast against the positions.
    """

    nodes: tuple[Node, ...]
    fn: Callable[..., Array] | None = None
    params: tuple[Known, ...] = ()

    def __call__(self, values: tuple[Array, ...], params: tuple[Array, ...]) -> Array:
        """The function's value."""
        return values[0] if self.fn is None else self.fn(*values, *params)

    @functools.cached_property
    def function(self) -> Elementwise:
        """The function of one node, with its dual if it has no parameters: the same object for equal programs."""
        fn = self.fn or _itself
        if self.params:
            return elementwise(fn, len(self.params))
        with jax.ensure_compile_time_eval():
            closed = jax.make_jaxpr(fn)(0.0)
        key = str(closed.jaxpr), tuple(np.asarray(c).tobytes() for c in closed.consts)
        if key not in _FUNCTIONS:
            _FUNCTIONS[key] = elementwise(fn)
        return _FUNCTIONS[key]


@dataclasses.dataclass(frozen=True, eq=False)
class Term:
    """A product of functions of independent nodes, times a known number at every position; no atoms: the number."""

    factor: Known
    atoms: tuple[Atom, ...] = ()

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes."""
        return tuple(node for atom in self.atoms for node in atom.nodes)


@dataclasses.dataclass(frozen=True, eq=False)
class Feature:
    """A sum of terms at `positions`, independent and identically distributed along the channels."""

    positions: Shape
    terms: tuple[Term, ...]

    @property
    def nodes(self) -> list[Node]:
        """All nodes, each once."""
        return list(dict.fromkeys(node for term in self.terms for node in term.nodes))

    @property
    def linear(self) -> bool:
        """Whether it is a weighted sum of nodes."""
        return all(len(term.atoms) == 1 and term.atoms[0].fn is None for term in self.terms)


def is_mask(node: Node) -> bool:
    """Whether it is 0 or 1."""
    if isinstance(node, Moved) and isinstance(node.move, Index) and node.move.is_complete:
        return is_mask(node.node)
    return is_mask(node.node) if isinstance(node, Shifted) else isinstance(node, Mask)


def node_feature(node: Node) -> Feature:
    """The feature that is a node."""
    return Feature(node.positions, (Term(Known.constant(1.0, len(node.positions)), (Atom((node,)),)),))


def as_node(feature: Feature) -> Node:
    """A weighted sum of nodes as one node, any other feature wrapped."""
    if not feature.linear or not feature.terms:
        leaves = frozenset().union(*(node.leaves for node in feature.nodes)) if feature.terms else frozenset()
        return Wrapped(feature.positions, False, leaves, feature)
    return sum_nodes([scale_node(term.atoms[0].nodes[0], term.factor) for term in feature.terms])


def sum_nodes(nodes: Iterable[Node]) -> Node:
    """The sum of nodes."""
    parts = [part for node in nodes for part in (node.parts if isinstance(node, Sum) else (node,))]
    if len(parts) == 1:
        return parts[0]
    leaves = frozenset().union(*(part.leaves for part in parts))
    return Sum(parts[0].positions, all(part.gaussian for part in parts), leaves, tuple(parts))


def scale_node(node: Node, factor: Known) -> Node:
    """A node times known numbers."""
    if factor.is_number(1.0):
        return node
    if isinstance(node, Sum) and factor.is_scalar:
        return sum_nodes([scale_node(part, factor) for part in node.parts])
    if isinstance(node, Scaled):
        return scale_node(node.node, node.factor * factor)
    if factor.is_scalar and isinstance(node, Product | Bias):
        return dataclasses.replace(node, scale=node.scale * factor.scalar())
    return Scaled(node.positions, node.gaussian, node.leaves, node, factor)


def move_node(node: Node, move: PositionMap) -> Node:
    """A linear map of a node's positions."""
    if isinstance(move, Index):
        if move.is_identity:
            return node
        if isinstance(node, Moved) and isinstance(node.move, Index):
            return move_node(node.node, move.after(node.move))
        key = move.out, move.index.tobytes()
        if key not in node.memory:
            node.memory[key] = Moved(move.out, node.gaussian, node.leaves, node, move)
        return node.memory[key]
    return Moved(move.out, node.gaussian, node.leaves, node, move)


def move_feature(feature: Feature, move: PositionMap) -> Feature:
    """A linear map of a feature's positions. Copies are made of the nodes, so that functions stay functions."""
    if isinstance(move, Index) and move.is_complete:
        if move.is_identity:
            return feature
        part = _only_part(feature, move)
        if part is not None:
            return part

        def known(value: Known) -> Known:
            if value.is_scalar:
                return Known.apply(lambda a: jnp.reshape(a, (1,) * len(move.out)), value)
            whole = Known.apply(lambda a: jnp.broadcast_to(a, move.shape), value)
            return Known.apply(lambda a: move(a, 0), whole)

        def atom(a: Atom) -> Atom:
            return Atom(tuple(move_node(node, move) for node in a.nodes), a.fn, tuple(map(known, a.params)))

        terms = [Term(known(term.factor), tuple(map(atom, term.atoms))) for term in feature.terms]
        return Feature(move.out, tuple(terms))
    return node_feature(move_node(as_node(feature), move))


def _only_part(feature: Feature, move: Index) -> Feature | None:
    """Of features that lie side by side the one that is copied, if no other is."""
    if len(feature.terms) != 1 or not feature.linear or not feature.terms[0].factor.is_number(1.0):
        return None
    (node,) = feature.nodes
    parts = node.parts if isinstance(node, Sum) else ()
    moves = [move.after(part.move) for part in parts if isinstance(part, Moved) and isinstance(part.move, Index)]
    used = [i for i, taken in enumerate(moves) if (taken.index >= 0).any()]
    if len(moves) < len(parts) or len(used) != 1 or not moves[used[0]].is_complete:
        return None
    below = parts[used[0]].node  # pyright: ignore[reportAttributeAccessIssue]
    return move_feature(below.feature if isinstance(below, Wrapped) else node_feature(below), moves[used[0]])


def shift_feature(feature: Feature, offset: int) -> Feature:
    """The feature of channels further on."""
    if offset == 0:
        return feature

    def node(n: Node) -> Node:
        return shift_node(n, offset)

    terms = [
        Term(term.factor, tuple(dataclasses.replace(a, nodes=tuple(map(node, a.nodes))) for a in term.atoms))
        for term in feature.terms
    ]
    return Feature(feature.positions, tuple(terms))


def shift_node(node: Node, offset: int) -> Node:
    """The node of channels further on. Shifts stand next to the weights, so that equal ones are seen to be equal."""
    if isinstance(node, Sum):
        return sum_nodes([shift_node(part, offset) for part in node.parts])
    if isinstance(node, Scaled):
        return scale_node(shift_node(node.node, offset), node.factor)
    if isinstance(node, Moved):
        return move_node(shift_node(node.node, offset), node.move)
    if isinstance(node, Wrapped):
        return as_node(shift_feature(node.feature, offset))
    if isinstance(node, Shifted):
        return shift_node(node.node, node.offset + offset) if node.offset + offset else node.node
    leaves = frozenset((leaf, "from channel", offset) for leaf in node.leaves)
    return Shifted(node.positions, node.gaussian, leaves, node, offset)
