"""Reads the `config.json` of a model and checks the keys of Hugging Face's."""

import json
import math
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from sibert_jax.errors import InteropError

# Keys for the storage dtype of the weights, which do not affect the model.
DTYPE_KEYS = ("dtype", "torch_dtype")
# Keys of our `model` that Hugging Face's `config.json` lacks.
IMPORTED = {
    "qkv_bias": True,
    "branch_scaling": "none",
    "dtype": "float32",
    "scan_layers": True,
    "remat": False,
    "attention_impl": "auto",
}


class Kind(NamedTuple):
    """The values that a key accepts."""

    wanted: str
    accepts: Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


SIZE = Kind("a whole number from 1", lambda x: type(x) is int and x >= 1)
RATE = Kind("a number from 0, less than 1", lambda x: _is_number(x) and 0 <= x < 1)
SMALL = Kind("a number from 0", lambda x: _is_number(x) and x >= 0)
POSITIVE = Kind("a number above 0", lambda x: _is_number(x) and x > 0)
SWITCH = Kind("true or false", lambda x: isinstance(x, bool))
Key = tuple[str, str, Kind, Any]  # our field, their key, its kind, its default; None: required


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Returns the object in a JSON file."""
    if not path.parent.is_dir():
        what = "is a file" if path.parent.exists() else "does not exist"
        raise InteropError(
            f"{path.parent} {what}; name a directory on this machine that holds config.json and "
            "model.safetensors (`hf download NAME --local-dir DIR` fetches one)."
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InteropError(
            f"{path} is missing; name a directory with config.json and model.safetensors."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InteropError(f"{path} cannot be read as JSON: {error}.") from None
    if not isinstance(values, dict):
        raise InteropError(
            f"{path} holds a {type(values).__name__}, expected a JSON object of settings."
        )
    return values


def value_of(theirs: dict[str, Any], key: str, default: Any) -> Any:
    """Returns the value of a key, or the default if it is absent or null."""
    value = theirs.get(key)
    return default if value is None else value


def check_required(
    path: pathlib.Path, theirs: dict[str, Any], required: Iterable[tuple[str, tuple]]
) -> None:
    """Raises InteropError unless each required key has one of its accepted values."""
    for key, accepted in required:
        found = value_of(theirs, key, accepted[0])
        if not any(found == value and type(found) is type(value) for value in accepted):
            raise InteropError(
                f"{path}: {key} is {found!r}, but only {accepted[0]!r} is supported."
            )


def checked(path: pathlib.Path, theirs: dict[str, Any], key: str, kind: Kind, default: Any) -> Any:
    """Returns the checked value of a key, or its default; without a default the key is required."""
    value = value_of(theirs, key, default)
    if value is None:
        raise InteropError(f"{path} has no key {key!r}, which the size of the model depends on.")
    if not kind.accepts(value):
        raise InteropError(f"{path}: {key} is {value!r}, expected {kind.wanted}.")
    return value


def first_architecture(path: pathlib.Path, theirs: dict[str, Any]) -> str | None:
    """Returns the first of `architectures`, or None."""
    names = value_of(theirs, "architectures", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InteropError(f"{path}: architectures is {names!r}, expected a list of class names.")
    return names[0] if names else None


def checked_sizes(path: pathlib.Path, theirs: dict[str, Any], keys: Iterable[Key]) -> dict:
    """Returns our sizes from their keys, which must include those of "width" and "num_heads"."""
    names = {ours: key for ours, key, _, _ in keys}
    sizes = {ours: checked(path, theirs, key, kind, default) for ours, key, kind, default in keys}
    if sizes["width"] % sizes["num_heads"]:
        raise InteropError(
            f"{path}: {names['width']} {sizes['width']} is not divisible by {names['num_heads']} "
            f"{sizes['num_heads']}."
        )
    return sizes


def rate_notes(rates: dict[str, float], dropout: float) -> list[str]:
    """Returns a sentence on each dropout rate that differs from our single rate."""
    return [
        f"{key} is {rate}; our models have one rate, model.dropout={dropout}"
        for key, rate in rates.items()
        if rate != dropout
    ]


def stored_in(config: dict[str, Any], dtype: str) -> dict[str, Any]:
    """Returns `config.json` with the storage dtype set; without a dtype key it means float32."""
    keys = [key for key in DTYPE_KEYS if key in config]
    if not keys and dtype != "float32":
        keys = ["torch_dtype"]
    return config | dict.fromkeys(keys, dtype)
