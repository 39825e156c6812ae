"""Print the degree of every tensor of a network, its symmetries, and the line that breaks them.

    python -m sibert_jax.homogeneity --config=sibert_base [--config.model.depth=2 ...]
    python -m sibert_jax.homogeneity my_package.my_module:my_function

`my_function()` takes no arguments and returns (fn, params, *args). Exit status: 0 if the network is
certified as scale invariant (for a config: in the leaves that its task declares invariant; for a
function: in all of params), 1 if not, 2 if the input is wrong.
"""

from __future__ import annotations

import argparse
import importlib
import traceback
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sibert_jax import command
from sibert_jax.files import user_path
from sibert_jax.homogeneity import Report, analyse, rescaling_error, unproven_symmetries
from sibert_jax.homogeneity.flow import draw

FACTORS = (0.5, 3.0)  # rescaling factors of --numerical


class WrongInput(Exception):
    """One sentence about an argument that cannot be used."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Analyze the network that the command line names; print the result and return the status."""
    given, overrides = parse(arguments)
    try:
        fn, params, args, mask = (
            _from_config(given.config, overrides) if given.config else _from_path(given.function)
        )
        report = analyse(fn, params, *args)
    except (ValueError, WrongInput) as error:
        command.fail(" ".join(str(error).split()))
    text = describe(report, mask, inside=given.inside)
    if given.numerical:
        text += "\n\n" + _numerical(fn, params, args, mask)
    print(text)
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "homogeneity.md").write_text(text + "\n", encoding="utf-8")
        draw(report.tensors(mask), report.obstruction(mask), given.out / "homogeneity.png")
        print(f"\n{given.out / 'homogeneity.md'}\n{given.out / 'homogeneity.png'}")
    return 0 if report.is_invariant(mask) else 1


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Return the options and the config overrides; exit with one sentence if one is wrong."""
    parser = command.parser("sibert_jax.homogeneity", __doc__)
    parser.add_argument(
        "function",
        nargs="?",
        metavar="MODULE:FUNCTION",
        help="returns (fn, params, *args) to analyze",
    )
    parser.add_argument(
        "--config", metavar="NAME[:VARIANT]", help="analyze the loss of this configuration instead"
    )
    parser.add_argument(
        "--out",
        type=user_path,
        metavar="DIR",
        help="directory for homogeneity.md and homogeneity.png",
    )
    parser.add_argument(
        "--inside", action="store_true", help="also list tensors that stay within one module"
    )
    parser.add_argument(
        "--numerical",
        action="store_true",
        help="also check numerically, by rescaling random parameters",
    )
    given, overrides = parser.parse_known_args(arguments)
    if (given.config is None) == (given.function is None):
        command.fail("give either --config=NAME or MODULE:FUNCTION.")
    if given.config is None and overrides:
        command.fail(f"unknown argument {overrides[0]!r}; see --help.")
    return given, overrides


def _from_config(name: str, overrides: list[str]) -> tuple:
    """Return the loss of a config's task, abstract parameters and batch, and the task's mask."""
    from sibert_jax.config_file import load_config
    from sibert_jax.tools.degrees import loss_of_config

    return loss_of_config(load_config(name, overrides))


def _from_path(path: str) -> tuple:
    """Return (fn, params, args, None) from the function at a dotted path; None is the mask."""
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise WrongInput(f"{path!r} cannot be imported ({error}); write module:function.") from None
    try:
        found = function()
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise WrongInput(
            f"{path}() raised {type(error).__name__}: {' '.join(str(error).split())} "
            f"({frame.filename}:{frame.lineno}); it takes nothing and returns (fn, params, *args)."
        ) from error
    if not isinstance(found, tuple) or len(found) < 2 or not callable(found[0]):
        kinds = ", ".join(type(part).__name__ for part in found) if type(found) is tuple else ""
        raise WrongInput(
            f"{path}() must return (fn, params, *args), found {type(found).__name__}({kinds})."
        )
    return found[0], found[1], found[2:], None


def describe(report: Report, mask: Any, *, inside: bool) -> str:
    """Return the table, the symmetries, the blocks and the first obstruction as Markdown."""
    lines = ["# Degrees", "", report.table(mask, inside=inside), "", "# Symmetries", ""]
    for symmetry in report.symmetries():
        lines.append("- " + ", ".join(f"{name}: {k}" for name, k in symmetry.items()))
    lines += ["", "# Scale-invariant blocks", ""]
    lines += ["- " + ", ".join(block) for block in report.blocks()]
    if report.unknown_primitives():
        lines += ["", f"Primitives without a rule: {', '.join(report.unknown_primitives())}"]
    obstruction = report.obstruction(mask)
    subject = "all of params" if mask is None else "the leaves that the task declares"
    lines += ["", "# Verdict", ""]
    if obstruction is None:
        lines.append(f"Scale invariant, jointly in {subject}: certified.")
    else:
        lines.append(f"Not certified as scale invariant, jointly in {subject}: {obstruction}")
    return "\n".join(lines)


def _numerical(fn: Any, params: Any, args: tuple, mask: Any) -> str:
    """Rescale the parameters (random where only shapes are given) and list unproven symmetries."""
    rng = np.random.default_rng(0)

    def concrete(leaf):
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            return jnp.asarray(np.abs(rng.normal(size=leaf.shape)), leaf.dtype)
        return jnp.ones(leaf.shape, leaf.dtype)

    params, args = jax.tree.map(concrete, (params, args))
    errors = [float(rescaling_error(fn, params, *args, c=c, mask=mask)) for c in FACTORS]
    lines = ["# Numerical check", ""]
    for c, error in zip(FACTORS, errors, strict=True):
        lines.append(f"- relative change when the leaves are multiplied by {c:g}: {error:.1e}")
    for symmetry in unproven_symmetries(fn, params, *args):
        exponents = ", ".join(f"{name}: {k}" for name, k in symmetry.items())
        lines.append(f"- holds numerically, not proven: {exponents}")
    return "\n".join(lines)


if __name__ == "__main__":
    command.run(main)
