"""Every key of a config with its value, meaning and range."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections

from sibert_jax.keys import describe_range
from sibert_jax.tasks.registry import task_type
from sibert_jax.train.config import RunConfig


def key_lines(config: ml_collections.ConfigDict) -> list[str]:
    """A line a key, as "train.num_steps = 600  # updates; 0: num_epochs counts (at least 0)".

    Raises:
      ConfigError: there is no such task.
    """
    kind = task_type(config.task.name)
    return list(_lines(RunConfig, config.to_dict(), "", task=kind.config, data=kind.data))


def _lines(cls: type, values: Mapping[str, Any], prefix: str, **classes: type) -> Iterator[str]:
    for field in dataclasses.fields(cls):
        value, kind = values[field.name], classes.get(field.name, field.type)
        if dataclasses.is_dataclass(kind):
            yield from _lines(kind, value, f"{prefix}{field.name}.")
            continue
        allowed = describe_range(field.metadata)
        note = field.metadata["doc"] + (f" ({allowed})" if allowed else "")
        yield f"{prefix}{field.name} = {value!r}  # {note}"
