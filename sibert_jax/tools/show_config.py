"""Lists every key of a config with its value, its origin, its meaning and its range."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sibert_jax.checkpoint import steps_in
from sibert_jax.config_file import load_config
from sibert_jax.files import flatten
from sibert_jax.keys import describe_range
from sibert_jax.tasks.registry import task_type
from sibert_jax.train.config import RunConfig, default_config
from sibert_jax.train.resolve import resolve


def config_lines(
    name: str, overrides: Sequence[str], directory: pathlib.Path | None = None
) -> list[str]:
    """Returns a line per key: "train.num_steps = 600  [config file]  # updates; ... (at least 0)".

    The origin of a value is one of "command line", "config file", "default of TASK", "default", the
    workdir, `checkpoint.init_from`, `checkpoint.continue_from`, or data.path for what is found in
    the examples. A config file that repeats a default does not count.

    Args:
      name: the config, as for `load_config`.
      overrides: likewise.
      directory: the workdir of the run, which determines its open keys; None: a new run.

    Raises:
      ConfigError, DataError: as for `resolve`.
    """
    file, given = load_config(name), load_config(name, overrides)
    kind = task_type(given.task.name)
    before, values = flatten(given.to_dict()), resolve(given, directory).to_dict()
    named = {word.partition("config.")[2].partition("=")[0] for word in overrides}
    found = {f"task.{key}" for key in kind.found_in_data}  # such as the labels
    in_file, usual = flatten(file.to_dict()), flatten(default_config(given.task.name).to_dict())
    keys = ("continue_from", "init_from")
    filled_from = next((f"checkpoint.{key}" for key in keys if given.checkpoint[key]), "default")
    if directory is not None and steps_in(directory / "checkpoints"):
        filled_from = "workdir"

    def origin(key: str, value: Any) -> str:
        if value != before[key]:
            return "data.path" if key in found and filled_from != "workdir" else filled_from
        if key in named or before[key] != in_file[key]:
            return "command line"
        if in_file[key] != usual[key]:
            return "config file"
        return f"default of {given.task.name}" if key in kind.defaults else "default"

    def lines(cls: type, values: Mapping[str, Any], prefix: str, **classes) -> Iterator[str]:
        for field in dataclasses.fields(cls):
            value, type_ = values[field.name], classes.get(field.name, field.type)
            key = f"{prefix}{field.name}"
            if dataclasses.is_dataclass(type_):
                yield from lines(type_, value, f"{key}.")
                continue
            allowed = describe_range(field.metadata)
            note = field.metadata["doc"] + (f" ({allowed})" if allowed else "")
            shown = list(value) if isinstance(value, tuple) else value
            yield f"{key} = {value!r}  [{origin(key, shown)}]  # {note}"

    return list(lines(RunConfig, values, "", task=kind.config, data=kind.data))
