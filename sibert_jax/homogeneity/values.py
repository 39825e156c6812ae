"""Facts that hold for all parameters: constants, equal tensors, zeros at guards."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sibert_jax.homogeneity.degree import ANY, ZERO, Degree

MAX_INSPECTED_SIZE = 2**24  # entries; larger constants get degree 0 without inspection
MAX_DEPTH = 16  # operations followed back from a guard

_FOLDED = {
    "add": np.add,
    "add_any": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "neg": np.negative,
    "abs": np.abs,
    "max": np.maximum,
    "min": np.minimum,
    "sqrt": np.sqrt,
    "square": np.square,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "not": np.logical_not,
    "is_finite": np.isfinite,
    "stop_gradient": lambda x: x,
    "convert_element_type": lambda x: x,
}

# Operations that movements of elements are pushed through, so that equal predicates match.
_PUSHED = {"eq", "gt", "ge", "not", "and", "or", "xor", "is_finite"}
_SWAPPED = {"lt": "gt", "le": "ge"}

_ZERO_KEEPING = {"sqrt", "square", "abs", "neg", "cbrt"}  # f(x) = 0 ⇔ x = 0
_OF_ZEROS = {*_ZERO_KEEPING, "min", "max", "add", "sub"}  # f(0, 0) = 0
_NONNEGATIVE = {"sqrt", "square", "abs", "exp", "exp2", "logistic"}


def degree_of_constant(array: Any) -> tuple[Degree | None, Any]:
    """Return a constant's degree, and the value that all its entries share (None if they differ).

    0, ±inf and NaN are unchanged by scaling and fit any degree; other numbers have degree 0.
    """
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.extended):
        return ZERO, None
    array = np.asarray(array)
    if array.dtype == jax.dtypes.float0:
        return ANY, 0
    if array.size == 0 or array.size > MAX_INSPECTED_SIZE or array.dtype == object:
        return ZERO, None
    first = array.reshape(-1)[0]
    uniform = bool(np.all(array == first)) or bool(first != first and np.all(array != array))
    if jnp.issubdtype(array.dtype, jnp.inexact):  # both parts of a complex number
        free = all(np.all((x == 0) | ~np.isfinite(x)) for x in (array.real, array.imag))
    else:
        free = not array.any()
    return (ANY if free else ZERO), (first.item() if uniform else None)


def fold(name: str, constants: tuple, dtype: np.dtype) -> Any:
    """Return the result of an elementwise operation on known numbers, or None."""
    operation = _FOLDED.get(name)
    if operation is None or not constants or None in constants:
        return None
    if name == "not" and dtype != np.bool_:
        return None
    with np.errstate(all="ignore"):
        exact = operation(*constants)
        result = np.asarray(exact).astype(dtype)
    if not jnp.issubdtype(dtype, jnp.inexact) and result != exact:
        return None  # an integer overflow or a truncating cast
    return result.item()


class Numbering:
    """Value numbering: tensors that are provably equal get the same number.

    `where(z > 0, r / where(z > 0, z, 1), 0)` computes z > 0 twice; the guard is recognized only if
    both are known to be the same predicate, even if one was broadcast before the comparison and the
    other after it. So movements of elements are pushed through comparisons to their operands.

    Attributes:
        negated: maps the number of `not p` to the number of p.
        entries: maps the number of a constant to the value of its entries.
    """

    def __init__(self):
        self.negated: dict[int, int] = {}
        self._table: dict[Hashable, int] = {}
        self.entries: dict[int, Any] = {}
        self._definitions: dict[int, tuple] = {}
        self._fresh = itertools.count()

    def _of(self, *key: Any) -> int:
        try:
            return self._table.setdefault(key, len(self._table))
        except TypeError:  # an unhashable parameter
            return self.fresh()

    def fresh(self) -> int:
        """Return an unused number."""
        return self._of("fresh", next(self._fresh))

    def constant(self, entry: Any) -> int:
        """Return the number of every tensor whose entries all equal `entry`."""
        number = self._of("constant", repr(entry))
        self.entries[number] = entry
        return number

    def elementwise(self, name: str, params: Hashable, operands: Sequence[int]) -> int:
        """Return the number of an elementwise result; the operands have its shape.

        a < b is b > a, and a != b is not a == b (NaN included).
        """
        if name in _SWAPPED:
            return self.elementwise(_SWAPPED[name], params, operands[::-1])
        if name == "ne":
            return self.elementwise("not", (), [self.elementwise("eq", params, operands)])
        if name == "not" and operands[0] in self.negated:
            return self.negated[operands[0]]
        number = self._of(name, params, *operands)
        if number not in self._definitions:
            self._definitions[number] = ("elementwise", name, params, tuple(operands))
        if name == "not":
            self.negated[number] = operands[0]
        return number

    def reduction(self, name: str, operand: int, shape: tuple, axes: tuple) -> int:
        """Return the number of a sum or maximum of an operand of this shape along axes."""
        number = self._of(name, operand, shape, axes)
        self._definitions[number] = ("reduction", operand, shape, axes)
        return number

    def definition(self, number: int) -> tuple:
        """Return how a tensor was computed, or (None,) if unknown:

        ("elementwise", name, params, operands), ("broadcast", operand, shape, from_shape, dims) or
        ("reduction", operand, shape, axes).
        """
        return self._definitions.get(number, (None,))

    def broadcast(self, number: int, shape: tuple, from_shape: tuple, dims: tuple) -> int:
        """Return the number after `broadcast_in_dim`: operand axis i becomes axis dims[i]."""
        if shape == from_shape and dims == tuple(range(len(shape))):
            return number
        kind, *inner = self.definition(number)
        if kind == "broadcast":
            root, _, root_shape, root_dims = inner
            return self.broadcast(root, shape, root_shape, tuple(dims[d] for d in root_dims))
        key = ("broadcast_in_dim", shape, from_shape, dims)
        if number in self.entries or (kind == "elementwise" and inner[0] in _PUSHED):
            return self.moved(key, number)
        result = self._of(*key, number)
        self._definitions[result] = ("broadcast", number, shape, from_shape, dims)
        return result

    def moved(self, key: Hashable, number: int, others: Sequence[int] = ()) -> int:
        """Return the number after the movement of elements described by `key` and `others`."""
        if number in self.entries:
            return number
        kind, *inner = self.definition(number)
        if kind == "elementwise" and inner[0] in _PUSHED:
            name, params, operands = inner
            return self.elementwise(name, params, [self._again(key, o, others) for o in operands])
        return self._of(key, number, *others)

    def _again(self, key: Any, number: int, others: Sequence[int]) -> int:
        if key[0] == "broadcast_in_dim":
            return self.broadcast(number, *key[1:])
        return self.moved(key, number, others)


class Guards:
    """Tensors that are zero where a guard acts: `x / where(n > 0, n, 1)` with n = ‖x‖.

    Where n > 0 is false, n is 0 and so is every element of x, so the quotient is 0 for any guard
    constant. This follows from the definition of n, which `Numbering` keeps only for real tensors:
    a sum of complex squares may vanish, and integers may overflow.
    """

    def __init__(self, numbers: Numbering):
        self.numbers = numbers
        self._zeros: dict[int, tuple[bool, frozenset[int]]] = {}

    def zeros_where(self, predicate: int) -> tuple[bool, frozenset[int]]:
        """Return (outcome, tensors): these are zero wherever the predicate has that outcome."""
        if predicate not in self._zeros:
            self._zeros[predicate] = self._find(predicate)
        return self._zeros[predicate]

    def is_zero_with(self, number: int, zeros: frozenset[int], depth: int = MAX_DEPTH) -> bool:
        """Tell whether a tensor is zero wherever all of `zeros` are."""
        if number in zeros:
            return True
        kind, *definition = self.numbers.definition(number)
        if kind != "elementwise" or depth == 0 or not zeros:
            return False
        name, _, operands = definition
        each = [self.is_zero_with(operand, zeros, depth - 1) for operand in operands]
        return name in _OF_ZEROS and all(each)

    def _find(self, predicate: int) -> tuple[bool, frozenset[int]]:
        kind, *definition = self.numbers.definition(predicate)
        if kind != "elementwise":
            return True, frozenset()
        name, _, operands = definition
        left, right = (operands + operands)[:2]
        if name == "eq" and self._is_zero(right):  # x == 0
            return True, self._vanishing(left, MAX_DEPTH)
        if name == "eq" and self._is_zero(left):
            return True, self._vanishing(right, MAX_DEPTH)
        if name == "gt" and self._is_zero(right) and self._nonnegative(left, MAX_DEPTH):
            return False, self._vanishing(left, MAX_DEPTH)  # not x > 0
        if name == "ge" and self._is_zero(left) and self._nonnegative(right, MAX_DEPTH):
            return True, self._vanishing(right, MAX_DEPTH)  # 0 >= x
        return True, frozenset()

    def _constant(self, number: int) -> Any:
        """Return the value that all entries share, or None."""
        return self.numbers.entries.get(number)

    def _is_zero(self, number: int) -> bool:
        return self._constant(number) == 0

    def _nonnegative(self, number: int, depth: int) -> bool:
        """Tell whether no entry is negative."""
        constant = self._constant(number)
        if constant is not None:
            return not isinstance(constant, complex) and constant >= 0
        kind, *definition = self.numbers.definition(number)
        if depth == 0 or kind is None:
            return False
        if kind in ("broadcast", "reduction"):
            return self._nonnegative(definition[0], depth - 1)
        name, params, operands = definition
        if name in _NONNEGATIVE or (name == "mul" and operands[0] == operands[1]):
            return True
        if name == "integer_pow":
            return dict(params)["y"] % 2 == 0
        each = [self._nonnegative(operand, depth - 1) for operand in operands]
        if name == "max":
            return any(each)
        if name == "select":
            return all(each[1:])
        return name in ("add", "mul", "div", "min", "convert_element_type") and all(each)

    def _vanishing(self, number: int, depth: int) -> frozenset[int]:
        """Return the tensors that are zero wherever this one is."""
        found = {number}
        kind, *definition = self.numbers.definition(number)
        if depth == 0 or kind is None:
            return frozenset(found)
        if kind == "broadcast":
            found |= self._vanishing_below(*definition, depth)
        elif kind == "elementwise":
            for operand in self._zero_factors(*definition, depth):
                found |= self._vanishing(operand, depth - 1)
        return frozenset(found)

    def _vanishing_below(self, root, shape, from_shape, dims, depth) -> set[int]:
        """Follow a broadcast tensor; a sum of nonnegative elements is zero only if all are."""
        found = set()
        for inner in self._vanishing(root, depth - 1):
            found.add(self.numbers.broadcast(inner, shape, from_shape, dims))
        for inner in list(found):
            kind, *definition = self.numbers.definition(inner)
            if kind != "broadcast":
                continue
            reduced_kind, *reduction = self.numbers.definition(definition[0])
            if reduced_kind != "reduction":
                continue
            operand, operand_shape, axes = reduction
            kept = tuple(i for i in range(len(operand_shape)) if i not in axes)
            restored = definition[1] == operand_shape and definition[3] == kept
            if restored and self._nonnegative(operand, depth - 1):
                found |= self._vanishing(operand, depth - 1)
        return found

    def _zero_factors(self, name, params, operands, depth) -> list[int]:
        """Return the operands that must vanish for the result to vanish."""
        constants = [self._constant(operand) for operand in operands]
        if name in _ZERO_KEEPING or (name == "integer_pow" and dict(params)["y"] > 0):
            return [operands[0]]
        if name == "convert_element_type" and jnp.issubdtype(
            dict(params)["new_dtype"], jnp.floating
        ):
            return [operands[0]]
        if name == "mul":
            if operands[0] == operands[1]:
                return [operands[0]]
            return [
                operand
                for operand, other in zip(operands, constants[::-1])
                if other is not None and other != 0
            ]
        if name == "div" and constants[1] is not None and abs(constants[1]) < float("inf"):
            return [operands[0]]
        if name in ("add", "max") and all(
            self._nonnegative(operand, depth - 1) for operand in operands
        ):
            return list(operands)
        return []
