"""Analyze a JAX function: degrees, symmetries, blocks, and the first line that breaks one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import jax

from sibert_jax.homogeneity.degree import ANY, ZERO, Degree, Leaf, all_needs
from sibert_jax.homogeneity.inputs import exponents_of, flatten, is_array, is_parameter, trace
from sibert_jax.homogeneity.interpreter import Interpreter
from sibert_jax.homogeneity.rules import Equation, arithmetic, arrays, nested  # noqa: F401

if TYPE_CHECKING:  # imported by the methods that need them
    from sibert_jax.homogeneity.flow import Tensor
    from sibert_jax.homogeneity.obstruction import Obstruction


@dataclasses.dataclass(frozen=True, repr=False)
class Report:
    """The result of `analyse`. Leaves are named by their path: "encoder/layer_0/kernel".

    Attributes:
        params: the parameter tree that was analyzed.
        names: the names of its leaves, in flat order.
        structure: its tree definition.
        interpreter: the equations and the operations of the program.
        outputs: the degree of each output array.
        output_tree: the tree definition of the outputs.
    """

    params: Any
    names: list[str]
    structure: Any
    interpreter: Interpreter
    outputs: list[Leaf]
    output_tree: Any

    def __repr__(self) -> str:
        return (
            f"<Report: {len(self.parameter_indices)} leaves, {len(self.symmetries())} symmetries, "
            f"{'scale invariant' if self.is_invariant() else 'not certified'} in all jointly>"
        )

    # Equations

    def requirements(self, outputs: bool = True) -> list[Equation]:
        """Return the equations that must hold, in program order.

        With `outputs`, each output's degree must also be 0.
        """
        needs = all_needs(self.outputs)
        found = [
            equation for i, equation in enumerate(self.interpreter.equations) if needs >> i & 1
        ]
        if outputs:
            found += [
                Equation(leaf.degree, "output", (leaf.degree,), None)
                for leaf in self.outputs
                if leaf.degree
            ]
        return found

    def _exponents(self, mask: Any) -> dict[int, Fraction]:
        exponents = exponents_of(mask, self.params)
        return {i: k for i, k in enumerate(exponents) if k}

    @property
    def parameter_indices(self) -> list[int]:
        """The flat indices of the leaves that scale."""
        flat = self.structure.flatten_up_to(self.params)
        return [i for i, leaf in enumerate(flat) if is_parameter(leaf)]

    # Symmetries

    def symmetries(self) -> list[dict[str, Fraction]]:
        """Return a basis of all exponents a with fn(c^a · params) = fn(params) for every c > 0.

        Each element maps the names of the scaled leaves to their integer exponents. Every rational
        combination of the elements is a symmetry too.
        """
        return self._basis(self.requirements())

    def scalings(self) -> list[dict[str, Fraction]]:
        """Return a basis of all exponents under which every output is homogeneous of some degree.

        Its span contains the symmetries; `degree(exponents)` is the power of c that multiplies an
        output.
        """
        return self._basis(self.requirements(outputs=False))

    def _basis(self, equations: list[Equation]) -> list[dict[str, Fraction]]:
        from sibert_jax.homogeneity.solve import null_space

        indices = self.parameter_indices
        place = {index: i for i, index in enumerate(indices)}
        forms = [
            Degree({place[i]: k for i, k in equation.form.terms.items()}) for equation in equations
        ]
        basis = null_space(forms, len(indices))
        return [{self.names[indices[i]]: k for i, k in sorted(v.items())} for v in basis]

    def is_invariant(self, mask: Any = None) -> bool:
        """Tell whether scaling the masked leaves jointly provably leaves every output unchanged.

        Args:
            mask: a tree of bools, a prefix of `params`; None for every floating-point leaf. A tree
                of numbers gives the leaves' exponents instead of 0 and 1.
        """
        return self._violated(self._exponents(mask)) is None

    def _violated(self, exponents: Mapping[int, Fraction], outputs: bool = True) -> Equation | None:
        return next((eq for eq in self.requirements(outputs) if eq.form.at(exponents) != 0), None)

    def obstruction(self, mask: Any = None) -> Obstruction | None:
        """Return the first operation that breaks the joint invariance of the masked leaves.

        Args:
            mask: as for `is_invariant`.

        Returns:
            The obstruction, or None if the leaves are invariant.
        """
        exponents = self._exponents(mask)
        equation = self._violated(exponents)
        if equation is None:
            return None
        from sibert_jax.homogeneity.obstruction import explain

        return explain(equation, exponents, self.names, self._subject(exponents))

    def _subject(self, exponents: Mapping[int, Fraction]) -> str:
        """Name the scaled leaves: their common path if nothing else lies below it."""
        scaled = [self.names[i] for i in exponents]
        if len(exponents) == len(self.parameter_indices):
            return "params"
        parts = [name.split("/") for name in scaled]
        common = []
        for level in zip(*parts, strict=False):
            if len(set(level)) > 1:
                break
            common.append(level[0])
        return "/".join(common) or f"{len(scaled)} leaves"

    def blocks(self) -> list[tuple[str, ...]]:
        """Return the finest independent blocks: disjoint, jointly scale-invariant sets of leaves.

        No leaf lies in two blocks, no block contains a smaller one, and a leaf lies in none if no
        joint scaling that includes it leaves the outputs unchanged.
        """
        from sibert_jax.homogeneity.solve import find_blocks

        indices = self.parameter_indices
        found = find_blocks([eq.form for eq in self.requirements()], indices)
        return [tuple(self.names[i] for i in block) for block in found]

    def block_labels(self, outside: str = "not_invariant") -> Any:
        """Return a tree like `params` with each leaf's block: "block_0", ..., or `outside`.

        The result can be passed to `optax.partition` as labels.
        """
        labels = {name: f"block_{i}" for i, block in enumerate(self.blocks()) for name in block}
        flat = [labels.get(name, outside) for name in self.names]
        return jax.tree.unflatten(self.structure, flat)

    def invariant_mask(self) -> Any:
        """Return a tree like `params`, True for the leaves of all blocks (jointly invariant)."""
        inside = {name for block in self.blocks() for name in block}
        return jax.tree.unflatten(self.structure, [name in inside for name in self.names])

    # Degrees

    @property
    def degrees(self) -> Any:
        """The output tree with each array's degree as a mapping from leaf names to coefficients.

        The output is multiplied by c to the power Σ coefficient · exponent, for exponents that
        satisfy every requirement (`scalings`). An output of degree 0, or of only 0, ±inf and NaN,
        has an empty mapping.
        """
        forms = [
            (ZERO if leaf.degree is ANY else leaf.degree).named(self.names) for leaf in self.outputs
        ]
        return jax.tree.unflatten(self.output_tree, forms)

    def degree(self, mask: Any = None) -> Any:
        """Return each output's degree when the masked leaves are scaled jointly.

        Args:
            mask: as for `is_invariant`.

        Returns:
            The output tree with a Fraction for each array, or None if the rules cannot prove that
            the function is homogeneous in these leaves.
        """
        exponents = self._exponents(mask)
        if self._violated(exponents, outputs=False) is not None:
            return None
        values = [
            Fraction(0) if leaf.degree is ANY else leaf.degree.at(exponents)
            for leaf in self.outputs
        ]
        return jax.tree.unflatten(self.output_tree, values)

    def table(self, mask: Any = None, *, inside: bool = False) -> str:
        """Return a Markdown table of the tensors that pass between modules, with their degrees.

        Args:
            mask: as for `is_invariant`: the degrees are those under a joint scaling of these
                leaves.
            inside: list every floating-point tensor, including those that stay inside a module.

        Returns:
            One row per tensor: module, operation, type, degree, source line. After the first
            obstruction the degree of a sum is that of its first operand.
        """
        from sibert_jax.homogeneity.flow import markdown

        found = self.tensors(mask)
        return markdown(found if inside else [tensor for tensor in found if tensor.readers])

    def tensors(self, mask: Any = None) -> list[Tensor]:
        """Return every floating-point tensor in program order, for custom tables or graphs."""
        from sibert_jax.homogeneity.flow import tensors

        return tensors(self.interpreter, self._exponents(mask))

    def unknown_primitives(self) -> list[str]:
        """Return the primitives without a rule: their operands must have degree 0."""
        return sorted(self.interpreter.unknown)


def analyse(fn: Callable, params: Any, *args: Any) -> Report:
    """Find all exponents a for which fn(c^a · params, *args) provably equals fn(params, *args).

    Leaf i of `params` gets the unknown exponent aᵢ. The degree of every intermediate tensor is a
    linear form in them: products add degrees, powers multiply them, sums require equal degrees, a
    transcendental function requires degree 0, and constants other than 0, ±inf and NaN have degree
    0. The exponents that satisfy every requirement form a linear space over the rationals; its
    basis is `report.symmetries()`. Nothing is evaluated: arrays may be `jax.ShapeDtypeStruct`s.

    A certificate holds for every c > 0 in exact arithmetic while values are finite. A scaling
    without a certificate may still leave the outputs unchanged: see `rescaling_error`.

    Args:
        fn: a function that JAX can trace; it returns a pytree of arrays.
        params: a pytree; its floating-point arrays are scaled, its other leaves are not.
        *args: pytrees of data with degree 0. Leaves that are not arrays (bools, strings, functions)
            are static.

    Returns:
        A `Report`.

    Raises:
        ValueError: if `params` has no floating-point array, `fn` does not trace, or an output is
            not an array.

    Example:
        >>> import jax.numpy as jnp
        >>> params = {"a": jnp.ones((4, 2)), "b": jnp.ones((2, 4))}
        >>> report = analyse(lambda p: p["a"] @ p["b"], params)
        >>> report.symmetries()
        [{'a': Fraction(1, 1), 'b': Fraction(-1, 1)}]

    References:
        Li, Bhojanapalli, Zaheer, Reddi, Kumar, "Robust Training of Neural Networks Using Scale
        Invariant Architectures", https://arxiv.org/abs/2202.00980, Table 2; Li & Arora, "An
        Exponential Learning Rate Schedule for Deep Learning", https://arxiv.org/abs/1910.07454.
    """
    named, structure = flatten(params)
    closed, output_tree = trace(fn, params, args)
    interpreter = Interpreter()
    array_leaves = [i for i, (_, leaf) in enumerate(named) if is_array(leaf)]
    inputs = [
        interpreter.value(Degree.of_leaf(i) if is_parameter(named[i][1]) else ZERO)
        for i in array_leaves
    ]
    num_data = len(closed.jaxpr.invars) - len(inputs)
    inputs += [interpreter.value(ZERO) for _ in range(num_data)]
    outputs = interpreter.merged(interpreter.run(closed, inputs, ()))
    return Report(
        params=params,
        names=[name for name, _ in named],
        structure=structure,
        interpreter=interpreter,
        outputs=[Leaf(leaf.degree, leaf.needs | interpreter.write_needs) for leaf in outputs],
        output_tree=output_tree,
    )


def assert_scale_invariant(fn: Callable, params: Any, *args: Any, mask: Any = None) -> None:
    """Raise unless fn(params) is provably unchanged when the masked leaves are scaled jointly.

    Args:
        fn, params, args: as for `analyse`.
        mask: a tree of bools, a prefix of `params`; None for every floating leaf.

    Raises:
        ValueError: naming the first operation that breaks the invariance, its line and a fix.

    Example:
        >>> import jax.numpy as jnp
        >>> direction = lambda w: w / jnp.sqrt(jnp.sum(w**2))
        >>> assert_scale_invariant(direction, jnp.ones(3))
    """
    obstruction = analyse(fn, params, *args).obstruction(mask)
    if obstruction is not None:
        raise ValueError(
            f"not certified as scale invariant in {obstruction.subject}: {obstruction}"
        )
