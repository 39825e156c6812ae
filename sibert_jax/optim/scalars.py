"""Check hyperparameters that are a number or a schedule, and read them in float32."""

import math
from numbers import Real

import jax
import jax.numpy as jnp
import numpy as np
import optax

# The wording of optax, which keeps this constant in a private module.
NO_PARAMS_MSG = (
    "You are using a transformation that requires the current value of parameters, but you are "
    "not passing `params` when calling `update`."
)


def value_at(value: optax.ScalarOrSchedule, count: jax.Array) -> jax.Array:
    """Return the number, or the schedule's value at step `count`, in at least float32."""
    scalar = jnp.asarray(value(count) if callable(value) else value)
    if jnp.issubdtype(scalar.dtype, jnp.floating) and scalar.dtype.itemsize >= 4:
        return scalar
    return scalar.astype(jnp.float32)


def check_scalar(
    name: str,
    value: optax.ScalarOrSchedule,
    *,
    minimum: float = 0.0,
    strict: bool = False,
    below: float = math.inf,
) -> None:
    """Raise ValueError unless `value` is a schedule, an array, or a number in range.

    Arrays pass unread: they may be traced, and reading one would stall the device.
    """
    if callable(value) or isinstance(value, jax.Array):
        return
    is_number = isinstance(value, Real) or (isinstance(value, np.ndarray) and value.ndim == 0)
    if isinstance(value, bool | np.bool_) or not is_number:
        raise ValueError(f"{name} must be a number or a schedule, found {value!r}.")
    number = float(value)
    in_range = (number > minimum if strict else number >= minimum) and (
        number < below or below == math.inf
    )
    if not in_range:
        bound = f"{'>' if strict else '>='} {minimum:g}"
        upper = "" if below == math.inf else f" and < {below:g}"
        raise ValueError(f"{name} must be {bound}{upper}, found {number:g}.")


def check_integer(name: str, value: int, *, minimum: int, below: float = math.inf) -> int:
    """Return `value` as an int; raise ValueError unless it is a whole number in range.

    A float with a whole value, such as 1e6, is accepted.
    """
    whole = isinstance(value, int | float | np.integer | np.floating) and value == value // 1
    if isinstance(value, bool) or not whole or not minimum <= value < below:
        upper = "" if below == math.inf else f" and < {below:g}"
        raise ValueError(f"{name} must be a whole number >= {minimum}{upper}, found {value!r}.")
    return int(value)
