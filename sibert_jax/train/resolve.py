"""Resolves open config keys: from the encoder to start from, or to the default."""

import copy
import dataclasses
import json
import pathlib
from collections.abc import Callable

import ml_collections

from sibert_jax.checkpoint import checkpoints_in, steps_in
from sibert_jax.data import Tokenizer, vocabulary_file
from sibert_jax.errors import ConfigError
from sibert_jax.files import user_path
from sibert_jax.keys import from_dict
from sibert_jax.model.config import ARCHS, INHERITED_KEYS, SHAPE_KEYS, fresh_encoder
from sibert_jax.tasks.registry import task_type
from sibert_jax.train.config import check_direction

ConfigDict = ml_collections.ConfigDict

# The keys that this file reads before the whole config is checked.
_READ = {
    "task": ("name",),
    "model": INHERITED_KEYS,
    "data": ("seq_len", "vocab"),
    "checkpoint": ("init_from", "continue_from"),
}

# Weight files of an export or of Hugging Face: such a directory must be imported by interop.
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def resolve(
    config: ConfigDict,
    directory: pathlib.Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> ConfigDict:
    """Returns a copy of a config in which every key has a value.

    Open keys are those of `model` that are None, `data.seq_len` and `data.vocab` if None or "", and
    what a task infers from its data, such as labels. They are filled in from

    - the run in `directory`, if it has a checkpoint;
    - else the run in `checkpoint.init_from` or `checkpoint.continue_from`; an open `model.max_len`
      of the latter is at least `data.seq_len`;
    - else `fresh_encoder`, and `model.vocab_size` from the vocabulary file;
    - for labels of a run without a checkpoint that continues no other run, its training examples.

    An open `model.arch` only accepts SIBERT encoders, as the optimizer was chosen for them.

    Args:
      config: a config with every key of `default_config()`.
      directory: the workdir of the run; None: a new run.
      say: called with messages on inherited values that differ from the default, and on labels
        found.

    Raises:
      ConfigError: a key is missing; the directory to start from is not a run; or its encoder or
        vocabulary differs from the config (all differences are named).
      DataError: a vocabulary or the examples cannot be read.
    """
    for section, names in _READ.items():
        for name in names:
            if section not in config or name not in config[section]:
                raise ConfigError(f"{section}.{name} is missing; start from default_config().")
    config = copy.deepcopy(config)
    kind = task_type(config.task.name)
    longest, found = kind.seq_len, {}
    open_keys = [key for key in INHERITED_KEYS if config.model[key] is None]
    if directory is not None and steps_in(directory / "checkpoints"):
        origin = Origin.read(directory)
        _fill(config, origin, open_keys)
        longest, found = origin.seq_len, origin.task
    elif key := _key_of_origin(config):
        origin = _source(key, config.checkpoint[key])
        arch = origin.model["arch"]
        named = f"checkpoint.{key}={config.checkpoint[key]} has model.arch={arch!r}"
        check_direction(config.task.name, arch, named, "name a checkpoint of")
        _check_same(config, origin, open_keys, key)
        if key == "continue_from":
            found = origin.task
        _fill(config, origin, open_keys)
        if key == "continue_from" and "max_len" in open_keys and config.data.seq_len is not None:
            config.model.max_len = max(config.model.max_len, config.data.seq_len)
        unusual = _unusual(config, open_keys)
        if config.data.seq_len is None and config.model.max_len < longest:
            unusual.append(f"data.seq_len={config.model.max_len}")
        if unusual:
            say(f"from {origin.directory}: {', '.join(unusual)}")
    else:
        _fill_fresh(config)
    if config.data.seq_len is None:
        config.data.seq_len = min(longest, config.model.max_len)
    if kind.find is not None and not found:
        settings = config.to_dict()
        task = from_dict(kind.config, settings["task"], "task")
        found = kind.find(task, from_dict(kind.data, settings["data"], "data"), say)
    for key in kind.found_in_data:
        if config.task[key] == ():
            config.task[key] = tuple(found.get(key, ()))
    return config


@dataclasses.dataclass(frozen=True)
class Origin:
    """The run that open keys are filled in from."""

    directory: pathlib.Path
    model: dict
    task: dict
    seq_len: int

    @classmethod
    def read(cls, directory: pathlib.Path) -> "Origin":
        """Reads the origin from its `config.json`."""
        path = directory / "config.json"
        settings = read_settings(path)
        try:
            model = {key: settings["model"][key] for key in (*INHERITED_KEYS, "dropout")}
            task, seq_len = settings["task"], settings["data"]["seq_len"]
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"{path} lacks {error}, so {directory} is not the workdir of a run."
            ) from None
        if model["arch"] not in ARCHS:
            raise ConfigError(f"{path}: model.arch={model['arch']!r} is unknown to this version.")
        return cls(directory, model, task, seq_len)

    @property
    def vocab(self) -> pathlib.Path:
        """The path of the vocabulary file."""
        return vocabulary_file(self.directory)


def read_settings(path: pathlib.Path) -> dict:
    """Reads the `config.json` of a workdir; raises ConfigError with one sentence."""
    try:
        settings = json.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(
            f"{path} is missing, so {path.parent} is not the workdir of a run."
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}).") from None
    if not isinstance(settings, dict):
        raise ConfigError(
            f"{path} holds no JSON object, so {path.parent} is not the workdir of a run."
        )
    return settings


def _key_of_origin(config: ConfigDict) -> str:
    """Returns the key of `checkpoint` that names a run to start from; "" if none."""
    keys = ("continue_from", "init_from")
    return next((key for key in keys if config.checkpoint[key]), "")


def _source(key: str, directory: str) -> Origin:
    checkpoints, named = checkpoints_in(directory), f"checkpoint.{key}={directory}"
    if not checkpoints.is_dir():
        raise ConfigError(f"{named}: there is no such directory.")
    if not steps_in(checkpoints):
        if any(any(user_path(directory).glob(pattern)) for pattern in WEIGHTS):
            raise ConfigError(
                f"{named} holds weights but no checkpoint; make a workdir NEW of them with `python "
                f"-m sibert_jax.interop import {directory} NEW`, and give checkpoint.{key}=NEW."
            )
        raise ConfigError(f"{named} holds no checkpoint to start from; name the workdir of a run.")
    try:
        origin = Origin.read(checkpoints.parent)
    except ConfigError as error:
        raise ConfigError(f"{named}: {error}") from None
    if not origin.vocab.is_file():
        raise ConfigError(
            f"{named} has no {origin.vocab.name}, so it is unknown which tokens its token table "
            "holds."
        )
    return origin


def _check_same(config: ConfigDict, origin: Origin, open_keys: list[str], key_of: str) -> None:
    """Raises ConfigError, naming all differences, if encoder or vocabulary differ from the config.

    A run that continues another may have more positions.
    """
    grows = key_of == "continue_from" and (config.model.max_len or 0) >= origin.model["max_len"]
    arch = origin.model["arch"]
    differences = [
        f"model.{key} is {origin.model[key]!r} there, {config.model[key]!r} here"
        for key in SHAPE_KEYS
        if key not in open_keys
        and key not in ARCHS[arch].unused
        and config.model[key] != origin.model[key]
        and not (key == "max_len" and grows)
    ]
    if "arch" in open_keys and not ARCHS[arch].is_scale_invariant:
        differences.insert(
            0,
            f"model.arch is {arch!r} there, and this config trains SIBERT (set "
            f"model.arch={arch} and an optimizer for it)",
        )
    if config.data.vocab:
        named, kept = Tokenizer.load(config.data.vocab), Tokenizer.load(origin.vocab)
        if named.hash != kept.hash:
            differences.append(
                f"data.vocab={config.data.vocab} ({named.vocab_size} tokens) is not the vocabulary "
                f"there ({kept.vocab_size} tokens)"
            )
    if differences:
        raise ConfigError(
            f"checkpoint.{key_of}={config.checkpoint[key_of]} is not what this config asks for: "
            f"{'; '.join(differences)}. Leave these keys unset, or set them to the values there."
        )


def _fill(config: ConfigDict, origin: Origin, open_keys: list[str]) -> None:
    for key in open_keys:
        config.model[key] = origin.model[key]
    trains_one = "vocab_train_bytes" in config.data and not _key_of_origin(config)
    if config.data.vocab == "" and not trains_one:
        config.data.vocab = str(origin.vocab)


def _fill_fresh(config: ConfigDict) -> None:
    model = config.model
    if model.vocab_size is None and config.data.vocab:
        model.vocab_size = Tokenizer.load(config.data.vocab).vocab_size
    fresh = fresh_encoder(model.arch or "sibert")
    for key in INHERITED_KEYS:
        if model[key] is None:
            model[key] = getattr(fresh, key)


def _unusual(config: ConfigDict, open_keys: list[str]) -> list[str]:
    """Returns the filled-in keys that differ from a fresh encoder."""
    fresh, unused = fresh_encoder(config.model.arch), ARCHS[config.model.arch].unused
    return [
        f"model.{key}={config.model[key]}"
        for key in open_keys
        if key not in unused and config.model[key] != getattr(fresh, key)
    ]
