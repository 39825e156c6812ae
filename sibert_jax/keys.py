"""Config keys: fields of frozen dataclasses, with default, meaning and range.

@dataclasses.dataclass(frozen=True)
class EvalConfig:
    every_steps: int = key(200, "0: only at the end", low=0)

    def __post_init__(self):
        check("eval", self)
"""

import dataclasses
import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from sibert_jax.errors import ConfigError

Section = TypeVar("Section")
LIMITS = ("low", "above", "below", "high")  # limits of a number, in the metadata of its field


def key(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    above: float | None = None,
    below: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
    inherited: bool = False,
    may_change: bool = False,
    per_process: bool = False,
) -> Any:
    """Declares a key with its default, meaning, unit and range.

    Args:
      default: the value if a run does not set it.
      doc: meaning and unit, shown by --show_config.
      low: lowest value.
      above: the value must be greater.
      below: the value must be less; inf: it must be finite.
      high: highest value.
      choices: the allowed values; (): any.
      inherited: whether None means the value of the run in `checkpoint.init_from`, or `default`.
      may_change: whether a resumed run may have another value: the key says where things are, how
        to compute or what to show, not what is computed.
      per_process: whether the processes of a run may have different values.
    """
    metadata = {
        "doc": doc,
        "low": low,
        "above": above,
        "below": below,
        "high": high,
        "choices": tuple(choices),
        "inherited": inherited,
        "may_change": may_change,
        "per_process": per_process,
    }
    return dataclasses.field(default=default, metadata=metadata)


def check(section: str, config: Any) -> None:
    """Checks every field of a section that was made by `key`.

    Raises:
      ConfigError: a value is out of range; the message names the key.
    """
    for field in dataclasses.fields(config):
        value, about = getattr(config, field.name), field.metadata
        if not about or value is None:
            continue
        name = f"{section}.{field.name}" if section else field.name
        if about["choices"] and value not in about["choices"]:
            raise ConfigError(
                f"{name}={value!r} is unknown; choose one of {list(about['choices'])}."
            )
        low, above, below, high = (about[name] for name in LIMITS)
        fits = (
            (low is None or value >= low)
            and (above is None or value > above)
            and (below is None or value < below)
            and (high is None or value <= high)
        )
        if not fits:
            raise ConfigError(f"{name}={value!r} must be {describe_range(about)}.")


def describe_range(about: Mapping[str, Any]) -> str:
    """Describes a key's values in words: "at least 0 and below 1"; "" if there is no limit.

    Args:
      about: the metadata of its field.
    """
    low, above, below, high = (about[name] for name in LIMITS)
    bounds = []
    if about["choices"]:
        bounds.append(f"one of {', '.join(about['choices'])}")
    if low is not None:
        bounds.append(f"at least {low}")
    if above is not None:
        bounds.append("positive" if above == 0 else f"above {above}")
    if below is not None:
        bounds.append("finite" if below == math.inf else f"below {below}")
    if high is not None:
        bounds.append(f"at most {high}")
    return " and ".join(bounds)


def from_dict(
    cls: type[Section], values: Mapping[str, Any], section: str = "", **classes: type
) -> Section:
    """Builds the dataclass of a section from a nested mapping with exactly its keys.

    Args:
      cls: the dataclass.
      values: its keys; subsections are mappings, lists stand for tuples.
      section: name of the section; "": the whole config.
      **classes: classes of the subsections whose annotation does not give the type.

    Raises:
      ConfigError: a key is unknown or missing, or has an invalid value.
    """
    prefix = f"{section}." if section else ""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for name in values:
        if name not in fields:
            nearest = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(fields)}."
            raise ConfigError(f"{prefix}{name} is not a key; {hint}")
    arguments = {}
    for name, field in fields.items():
        if name not in values:
            raise ConfigError(f"{prefix}{name} is missing; start from default_config().")
        value, kind = values[name], classes.get(name, field.type)
        if dataclasses.is_dataclass(kind):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{prefix}{name}={value!r} must be a section with its keys.")
            value = from_dict(kind, value, prefix + name)
        arguments[name] = tuple(value) if isinstance(value, list) else value
    try:
        return cls(**arguments)
    except ConfigError:
        raise
    except TypeError as error:  # such as from comparing a string with a number
        raise ConfigError(f"{section or 'config'}: a value has the wrong type ({error}).") from None
    except ValueError as error:
        raise ConfigError(str(error)) from None


def named(cls: type, flag: str, prefix: str = "") -> Iterator[str]:
    """Yields the keys of a dataclass with a given flag of `key` set, as "section.name"."""
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(field.type):
            yield from named(field.type, flag, f"{prefix}{field.name}.")
        elif field.metadata and field.metadata[flag]:
            yield prefix + field.name
