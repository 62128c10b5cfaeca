"""Arithmetic of features: entry by entry, at the same channel and position."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dltheory._programs import Equation
from dltheory.infinite_width._errors import UnsupportedError
from dltheory.infinite_width._gaussians import (
    Atom,
    Feature,
    Node,
    Term,
    Wrapped,
    is_mask,
    scale_node,
    sum_nodes,
)
from dltheory.infinite_width._known import Known
from dltheory.typing import Array

__all__ = ["add", "apply", "cases", "is_centred"]

_SAME = {"convert_element_type", "copy", "reduce_precision", "real"}
_MOST_MASKS = 4


def apply(equation: Equation, operands: Sequence[Feature | Known], positions: tuple[int, ...]) -> Feature:
    """An elementwise equation of features and of known numbers at `positions`."""
    name = equation.name
    operands = [_without_terms(v) for v in operands]
    random = [v for v in operands if isinstance(v, Feature)]
    params = equation.primitive.get_bind_params(equation.params)

    def primitive(*values: Array) -> Array:
        which, *others = _alike(values)
        if name == "select_n" and jnp.issubdtype(which.dtype, jnp.floating):  # as parameters are
            which = which > 0.5 if len(others) == 2 else which.astype(jnp.int32)
        return equation.primitive.bind(which, *others, **params)

    if name == "select_n" and isinstance(operands[0], Known) and operands[0].is_static:
        return _lift(operands[1 + int(operands[0].scalar())], positions)
    if not random:
        return _lift(Known.apply(primitive, *operands), positions)  # pyright: ignore[reportArgumentType]
    if name in _SAME and _is_float(equation) and not _is_truth(random[0]):
        return random[0]
    if name == "stop_gradient":
        raise UnsupportedError("a tangent kernel through `stop_gradient` has no rule")
    if name in {"add", "add_any"}:
        return add([_lift(v, positions) for v in operands])
    if name == "sub":
        first, second = (_lift(v, positions) for v in operands)
        return add([first, _scale(second, Known.constant(-1.0, len(positions)))])
    if name == "neg":
        return _scale(random[0], Known.constant(-1.0, len(positions)))
    if name == "mul" and len(random) == 1:
        factor = next(v for v in operands if isinstance(v, Known))
        return _lift(factor, positions) if factor.is_number(0.0) else _scale(random[0], factor)
    if name == "div" and isinstance(operands[1], Known):
        return _scale(random[0], Known.apply(lambda a: 1 / a, operands[1]))
    masks = dict.fromkeys(node for feature in random for node in feature.nodes if is_mask(node))
    if len(masks) > _MOST_MASKS:
        raise UnsupportedError(f"a function of more than {_MOST_MASKS} dropout masks at once has too many cases")
    if masks:
        return _by_cases(equation, operands, next(iter(masks)), positions)
    if name == "mul" and not _is_one_function(operands):
        return _multiply(*random)
    if name == "div" and not _is_one_function(operands):
        first, second = (_lift(v, positions) for v in operands)
        return _multiply(first, _function([second], lambda u: 1 / u))
    if (name == "square" or (name == "integer_pow" and equation.params["y"] == 2)) and len(random[0].nodes) > 1:
        return _multiply(random[0], random[0])
    return _function(operands, primitive)


def add(features: Sequence[Feature]) -> Feature:
    """The sum of features."""
    positions = features[0].positions
    terms = [term for feature in features for term in feature.terms]
    rank = len(positions)
    constant = Known.constant(0.0, rank)
    linear: dict[Node, Known] = {}
    masked: dict[frozenset, tuple[list[Atom], dict[Node, Known]]] = {}
    merged: dict[Node, list[Term]] = {}
    others: list[Term] = []
    for term in terms:
        masks = [atom for atom in term.atoms if is_mask(atom.nodes[0])]
        rest = [atom for atom in term.atoms if atom not in masks]
        if not term.atoms:
            constant = constant + term.factor
        elif len(rest) == 1 and rest[0].fn is None:
            node = rest[0].nodes[0]
            key = frozenset((mask.nodes, mask.fn) for mask in masks)
            sums = masked.setdefault(key, (masks, {}))[1] if masks else linear
            sums[node] = sums[node] + term.factor if node in sums else term.factor
        elif _is_function(term):
            merged.setdefault(term.nodes[0], []).append(term)
        else:
            others.append(term)
    number = constant.is_static and not constant.is_number(0.0)
    if number and not merged and not others and not masked and len(linear) == 1:
        (node,) = linear
        if linear[node].is_static:
            merged[node] = []
    for node in merged:
        if node in linear and linear[node].is_static:
            merged[node].append(Term(linear.pop(node), (Atom((node,)),)))
    found = _linear_terms(linear, rank)
    for masks, sums in masked.values():
        found += [Term(term.factor, (*masks, *term.atoms)) for term in _linear_terms(sums, rank)]
    for node, group in merged.items():
        if number and len(merged) == 1 and not others and not found:
            group = [*group, Term(constant)]
            constant = Known.constant(0.0, rank)
        found.append(_merge(node, group, rank))
    found += others
    if not constant.is_number(0.0):
        found.append(Term(constant))
    return Feature(positions, tuple(found))


def is_centred(feature: Feature) -> bool:
    """Whether its mean is known to be 0."""
    return all(any(atom.fn is None and atom.nodes[0].centred for atom in term.atoms) for term in feature.terms)


def _linear_terms(linear: dict[Node, Known], rank: int) -> list[Term]:
    """Weighted nodes as one term: the same sum of nodes is then the same node wherever it is used."""
    if not linear:
        return []
    if len(linear) == 1:
        ((node, factor),) = linear.items()
        if factor.is_static:
            return [Term(factor, (Atom((node,)),))]
    memory = min(linear, key=id).memory
    key = frozenset((node, float(f.scalar()) if f.is_static else f) for node, f in linear.items())
    if key not in memory:
        memory[key] = sum_nodes([scale_node(node, factor) for node, factor in linear.items()])
    return [Term(Known.constant(1.0, rank), (Atom((memory[key],)),))]


def _is_function(term: Term) -> bool:
    """Whether it is a function of one Gaussian that does not depend on the inputs."""
    return (
        term.factor.is_static
        and len(term.atoms) == 1
        and len(term.nodes) == 1
        and not term.atoms[0].params
        and term.nodes[0].gaussian
    )


def _merge(node: Node, terms: Sequence[Term], rank: int) -> Term:
    if len(terms) == 1:
        return terms[0]
    (fn,), params = _compiled([Feature(node.positions, tuple(terms))], [node])
    assert not params
    return Term(Known.constant(1.0, rank), (Atom((node,), lambda u: fn((u,), ())),))


def _lift(value: Feature | Known, positions: tuple[int, ...]) -> Feature:
    return value if isinstance(value, Feature) else Feature(positions, (Term(value),))


def _scale(feature: Feature, factor: Known) -> Feature:
    return add([Feature(feature.positions, tuple(Term(t.factor * factor, t.atoms) for t in feature.terms))])


def _is_one_function(operands: Sequence[Feature | Known]) -> bool:
    """Whether everything is a function of one Gaussian that does not depend on the inputs."""
    random = [v for v in operands if isinstance(v, Feature)]
    nodes = {node for feature in random for node in feature.nodes}
    terms = [term for feature in random for term in feature.terms]
    static = all(v.is_static for v in operands if isinstance(v, Known))
    return len(nodes) == 1 and static and all(_is_function(t) or (not t.atoms and t.factor.is_static) for t in terms)


def _by_cases(
    equation: Equation, operands: Sequence[Feature | Known], mask: Node, positions: tuple[int, ...]
) -> Feature:
    """An equation where a mask is 1, and where it is 0."""
    terms = []
    for case in cases(mask):
        image = apply(equation, [_given(v, case) for v in operands], positions)
        if any(mask.leaves & node.leaves for node in image.nodes):
            raise UnsupportedError("entries of a dropout mask meet others of the same mask, which has no rule")
        terms += [Term(t.factor, (case, *t.atoms)) for t in image.terms if not t.factor.is_number(0.0)]
    return add([Feature(positions, tuple(terms))])


def _given(value: Feature | Known, case: Atom) -> Feature | Known:
    """What a value is in one of the two cases of a mask."""
    if isinstance(value, Known):
        return value
    terms = []
    for term in value.terms:
        own = [atom for atom in term.atoms if atom.nodes == case.nodes]
        if all(atom.fn is case.fn for atom in own):
            terms.append(Term(term.factor, tuple(atom for atom in term.atoms if atom not in own)))
    found = add([Feature(value.positions, tuple(terms))])
    if any(term.atoms for term in found.terms):
        return found
    return found.terms[0].factor if found.terms else Known.constant(0.0, len(value.positions))


def cases(mask: Node) -> tuple[Atom, Atom]:
    """Where a mask is 1, and where it is 0."""
    return Atom((mask,)), Atom((mask,), _complement)


def _complement(mask: Array) -> Array:
    return 1 - mask


def _multiply(first: Feature, second: Feature) -> Feature:
    terms = []
    for t in first.terms:
        for u in second.terms:
            atoms = list(t.atoms)
            for atom in u.atoms:
                partners = [a for a in atoms if any(m.leaves & n.leaves for m in a.nodes for n in atom.nodes)]
                if not partners:
                    atoms.append(atom)
                    continue
                (partner, *more) = partners
                if more or set(partner.nodes) != set(atom.nodes):
                    atoms.append(atom)
                    atoms = [_join([*partners, atom])] + [a for a in atoms if a not in partners and a is not atom]
                    continue
                atoms[atoms.index(partner)] = _join([partner, atom])
            terms.append(Term(t.factor * u.factor, tuple(atoms)))
    return add([Feature(first.positions, tuple(terms))])


def _join(atoms: Sequence[Atom]) -> Atom:
    """The product of functions as one function."""
    nodes = list(dict.fromkeys(node for atom in atoms for node in atom.nodes))
    _require_limit(nodes)
    rank = len(nodes[0].positions)
    product = Feature(nodes[0].positions, (Term(Known.constant(1.0, rank), tuple(atoms)),))
    (fn,), params = _compiled([product], nodes)
    k = len(nodes)
    return Atom(tuple(nodes), lambda *values: fn(values[:k], values[k:]), tuple(params))


def _function(operands: Sequence[Feature | Known], primitive: Callable[..., Array]) -> Feature:
    """Any function of features."""
    random = [v for v in operands if isinstance(v, Feature)]
    positions = random[0].positions
    nodes = list(dict.fromkeys(node for feature in random for node in feature.nodes))
    _require_limit(nodes)
    fns, params = _compiled(operands, nodes)
    k = len(nodes)

    def fn(*values: Array) -> Array:
        return primitive(*(f(values[:k], values[k:]) for f in fns))

    atom = Atom(tuple(nodes), fn, tuple(params))
    return Feature(positions, (Term(Known.constant(1.0, len(positions)), (atom,)),))


def _require_limit(nodes: Sequence[Node]) -> None:
    if any(not node.gaussian for node in nodes):
        mixed = any(_holds_feature(node) for node in nodes)
        raise UnsupportedError(
            "a nonlinear function of activations summed over positions, which are not Gaussian, has no closed form"
            if mixed
            else "a nonlinear function of sums over a few random weights, which are not Gaussian, has no closed form"
        )
    if len(nodes) > 2:
        raise UnsupportedError(
            "a function of more than two Gaussians, as in cells of LSTM and GRU, has a limit but no rule"
        )
    if len(nodes) == 2 and nodes[0].leaves & nodes[1].leaves:
        raise UnsupportedError("a function of two Gaussians that depend on each other has no rule")


def _holds_feature(node: Node) -> bool:
    if isinstance(node, Wrapped):
        return True
    parts = getattr(node, "parts", None) or ([node.node] if hasattr(node, "node") else [])  # pyright: ignore
    return any(_holds_feature(part) for part in parts)


def _compiled(
    operands: Sequence[Feature | Known], nodes: Sequence[Node]
) -> tuple[list[Callable[[Sequence[Array], Sequence[Array]], Any]], list[Known]]:
    """Operands as functions (values of nodes, values of known numbers) -> value, and the known numbers."""
    params: list[Known] = []

    def number(known: Known) -> Callable[[Sequence[Array]], Any]:
        if known.is_static:
            value = np.asarray(known.arrays[0]).reshape(())
            return lambda _: value
        params.append(known)
        place = len(params) - 1
        return lambda values: values[place]

    def term(t: Term) -> Callable[[Sequence[Array], Sequence[Array]], Any]:
        factor = number(t.factor)
        atoms = []
        for atom in t.atoms:
            places = [nodes.index(node) for node in atom.nodes]
            numbers = [number(p) for p in atom.params]
            atoms.append((atom, places, numbers))
        plain = t.factor.is_number(1.0)

        def value(us: Sequence[Array], ps: Sequence[Array]) -> Any:
            product = None if plain and atoms else factor(ps)
            for atom, places, numbers in atoms:
                here = atom(tuple(us[i] for i in places), tuple(n(ps) for n in numbers))
                product = here if product is None else jnp.multiply(*_alike([product, here]))
            return product

        return value

    def operand(v: Feature | Known) -> Callable[[Sequence[Array], Sequence[Array]], Any]:
        if isinstance(v, Known):
            known = number(v)
            return lambda _, ps: known(ps)
        terms = [term(t) for t in v.terms]

        def total(us: Sequence[Array], ps: Sequence[Array]) -> Any:
            first, *rest = (t(us, ps) for t in terms)
            for value in rest:
                first = jnp.add(*_alike([first, value]))
            return first

        return total

    return [operand(v) for v in operands], params


def _without_terms(value: Feature | Known) -> Feature | Known:
    """A feature that does not depend on any node is a known number."""
    if isinstance(value, Known) or value.nodes:
        return value
    return sum((term.factor for term in value.terms), start=Known.constant(0.0, len(value.positions)))


def _alike(values: Sequence[Any]) -> list[Array]:
    """Values with one shape and one floating-point type."""
    arrays = [jnp.asarray(v) for v in values]
    rank = max(a.ndim for a in arrays)
    shape = np.broadcast_shapes(*(a.shape for a in arrays))
    numbers = [a for a in arrays if jnp.issubdtype(a.dtype, jnp.floating)]
    floats = [a.dtype for a in numbers if a.ndim] or [a.dtype for a in numbers]
    found = []
    for a in arrays:
        if floats and jnp.issubdtype(a.dtype, jnp.floating):
            a = a.astype(jnp.result_type(*floats))
        a = a.reshape((1,) * (rank - a.ndim) + a.shape)
        found.append(jnp.broadcast_to(a, shape))
    return found


def _is_truth(feature: Feature) -> bool:
    """Whether its values are not numbers but true or false (or integers)."""
    with jax.ensure_compile_time_eval():
        values = [
            atom(tuple(jnp.zeros(()) for _ in atom.nodes), tuple(jnp.zeros(()) for _ in atom.params))
            for term in feature.terms
            for atom in term.atoms
            if atom.fn is not None
        ]
    return any(not jnp.issubdtype(jnp.result_type(value), jnp.floating) for value in values)


def _is_float(equation: Equation) -> bool:
    dtype = equation.params.get("new_dtype")
    return dtype is None or jnp.issubdtype(dtype, jnp.floating)
