"""Where a guard acts, what it guards is zero: `x / where(n > 0, n, 1)` with n = ‖x‖.

Where the predicate n > 0 fails, n is 0 and so is every element of x: there the quotient is 0
whatever the guard's constant is. That follows from how n was computed, which `Numbering` keeps for
real tensors: a sum of complex squares may vanish, and integers overflow.
"""

from __future__ import annotations

import jax.numpy as jnp

from sibert_jax.homogeneity.numbering import Numbering

MAX_DEPTH = 16  # operations that are followed back

_ZERO_KEEPING = {"sqrt", "square", "abs", "neg", "cbrt"}  # f(x) = 0 ⇔ x = 0
_OF_ZEROS = {*_ZERO_KEEPING, "min", "max", "add", "sub"}  # f(0, 0) = 0
_NONNEGATIVE = {"sqrt", "square", "abs", "exp", "exp2", "logistic"}


class Guards:
    """Conclusions about tensors, by number."""

    def __init__(self, numbers: Numbering):
        self.numbers = numbers
        self._zeros: dict[int, tuple[bool, frozenset[int]]] = {}

    def zeros_where(self, predicate: int) -> tuple[bool, frozenset[int]]:
        """Return (outcome, tensors): these are zero wherever the predicate has that outcome."""
        if predicate not in self._zeros:
            self._zeros[predicate] = self._find(predicate)
        return self._zeros[predicate]

    def is_zero_with(self, number: int, zeros: frozenset[int], depth: int = MAX_DEPTH) -> bool:
        """Tell whether a tensor's elements are zero where those of all of `zeros` are."""
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

    def _constant(self, number: int):
        """Return the number that all entries equal, or None."""
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
        """Return the tensors whose elements are zero where those of this one are."""
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
        """Follow a tensor that was broadcast; a sum of nonnegative elements vanishes as they do."""
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
