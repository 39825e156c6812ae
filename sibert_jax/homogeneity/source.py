"""The source location of an operation: the line of user code and the module path."""

from __future__ import annotations

import dataclasses
import os
import re
import sysconfig
from collections.abc import Iterator
from typing import Any

import jax

from sibert_jax.homogeneity.degree import Degree

_JAX = os.path.dirname(jax.__file__) + os.sep
_OURS = os.path.dirname(__file__) + os.sep
_STDLIB = sysconfig.get_path("stdlib") + os.sep
_LAYER_LIBRARIES = re.compile(r"(site|dist)-packages/(flax|equinox|haiku|optax|jaxtyping)/")
_INSTALLED = re.compile(r"(site|dist)-packages/")
# Modules whose functions perform several operations; operators and ufuncs perform one.
_FUNCTIONS = re.compile(r"/jax/_src/(numpy|nn|scipy|image)/(?!array_methods|ufunc_api|ufuncs)")
_TRACING = "trace_to_jaxpr"  # the name of JAX's functions between a caller and a traced callee


@dataclasses.dataclass(slots=True, eq=False)
class Site:
    """One operation of the program: its equation in the jaxpr and the calls around it.

    `calls` lists the enclosing call equations, outermost first. `constants` holds, per operand, the
    value that all its entries are known to share, or None. `outcomes` are the degrees of a select's
    operands (true, false), compared later when the outcomes are merged.
    """

    eqn: Any
    calls: tuple[Any, ...]
    constants: tuple[complex | None, ...] = ()
    outcomes: tuple[Degree | None, ...] = ()

    @property
    def stack(self) -> tuple[Any, ...]:
        """The enclosing calls, outermost first, and the operation itself."""
        return (*self.calls, self.eqn)


@dataclasses.dataclass(frozen=True, slots=True)
class Location:
    """A line of source code and the function that contains it."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def _frames(eqn: Any) -> Iterator[Location]:
    """Yield the frames inside the function that was traced into this jaxpr.

    A jitted function is traced once and its jaxpr reused, so outer frames belong to its first
    caller.
    """
    traceback = eqn.source_info.traceback
    for frame in traceback.frames if traceback is not None else ():
        if _TRACING in frame.function_name or frame.file_name.startswith(_OURS):
            return
        yield Location(frame.file_name, frame.line_num, frame.function_name)


def _rank(location: Location) -> int | None:
    """Rank a frame: 0 user code, 1 an installed package, 2 a layer library, None JAX or stdlib."""
    file = location.file.replace(os.sep, "/")
    if location.file.startswith(_JAX) or file.startswith("<"):
        return None
    if _LAYER_LIBRARIES.search(file):
        return 2
    if _INSTALLED.search(file):
        return 1
    return None if location.file.startswith(_STDLIB) else 0


def locate(site: Site | None) -> tuple[Location | None, Location | None]:
    """Return the line of user code and, if the operation is in a library called there, its line."""
    if site is None:
        return None, None
    ranked = [
        (rank, location)
        for eqn in reversed(site.stack)
        for location in _frames(eqn)
        if (rank := _rank(location)) is not None
    ]
    if not ranked:
        return None, None
    rank, user = min(ranked, key=lambda pair: pair[0])
    innermost_rank, innermost = ranked[0]
    return user, innermost if innermost_rank > rank else None


def library_function(eqn: Any) -> str | None:
    """Return the name of the public JAX function that a call equation enters, or None."""
    body = eqn.params.get("jaxpr")
    name = eqn.params.get("name", "_")
    debug_info = getattr(getattr(body, "jaxpr", body), "debug_info", None)
    file = getattr(debug_info, "func_filename", None) or ""
    return name if file.startswith(_JAX) and not name.startswith("_") else None


def caller_in_jax(site: Site) -> str | None:
    """Return the JAX function called by user code that contains the operation.

    None if the line of user code performs it directly, through an operator, `jax.lax` or a ufunc.
    """
    found = None
    for eqn in reversed(site.stack):
        found = library_function(eqn) or found
        for location in _frames(eqn):
            if _rank(location) is not None:
                return found
            file = location.file.replace(os.sep, "/")
            if _FUNCTIONS.search(file) and location.function.isidentifier():
                found = found if location.function.startswith("_") else location.function
    return found


def module_path(site: Site | None) -> str:
    """Return the path of the module that runs the operation, e.g. "encoder/layers/attention"."""
    if site is None:
        return ""
    parts = [str(eqn.source_info.name_stack) for eqn in site.stack]
    stack = "/".join(part for part in parts if part)
    previous = None
    while previous != stack:  # jvp(x), transpose(jvp(x)), vmap(x), ...: x
        previous = stack
        stack = re.sub(
            r"\b(jvp|transpose|vmap|checkpoint|rematted_computation)\(([^()]*)\)", r"\2", stack
        )
    # A Flax method other than __call__ is "module.method"; jnp.einsum is named by its formula.
    names = [name.split(".")[0] for name in stack.split("/") if name and "->" not in name]
    names = [name for name in names if name not in ("checkpoint", "remat")]
    return "/".join(name for i, name in enumerate(names) if i == 0 or names[i - 1] != name)
