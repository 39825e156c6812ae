"""Loads a config by name or path, with overrides from the command line."""

import contextlib
import difflib
import importlib.machinery
import importlib.util
import pathlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from types import ModuleType

from absl import flags
from ml_collections import ConfigDict, config_flags

import sibert_jax
from sibert_jax.errors import ConfigError
from sibert_jax.files import user_path

SHIPPED = pathlib.Path(sibert_jax.__file__).with_name("configs")
_MODULE = "sibert_jax_config_file"  # name in sys.modules


def load_config(name: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Loads a config and overrides some of its keys.

    Args:
      name: a file, or the bare name of one that comes with the package; a colon precedes the
        argument of its `get_config`, as in "mini:bert".
      overrides: words such as "--config.optim.learning_rate=1e-3"; the last one for a key wins.

    Returns:
      The locked config.

    Raises:
      ConfigError: the file cannot be used, a key does not exist, or a value has the wrong type.

    Example:
      >>> load_config("mini:bert", ["--config.seed=3"]).seed
      3
    """
    return override(_call_get_config(name), overrides)


def override(config: ConfigDict, words: Sequence[str]) -> ConfigDict:
    """Overrides keys like `load_config`, with the same errors; locks the config."""
    for word in words:
        if word.startswith(("--config.", "--noconfig.")):
            _check_key(config, word.partition("config.")[2].partition("=")[0])
    values, words = flags.FlagValues(), ["sibert_jax", *words]
    holder = config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=words)
    try:
        rest = values(words)
    except (flags.Error, TypeError, ValueError) as error:
        raise ConfigError(" ".join(str(error).split())) from None
    if rest[1:]:
        raise ConfigError(
            f"unknown argument {rest[1]!r}; overrides look like --config.optim.learning_rate=1e-3."
        )
    return holder.value


def find_config(name: str) -> tuple[pathlib.Path, str | None]:
    """Returns the file that a name refers to, and the variant after its colon.

    Raises:
      ConfigError: there is no such file, and no config of that name comes with the package.
    """
    text, colon, variant = name.partition(":")
    path = user_path(text)
    if path.is_file():
        return path, variant if colon else None
    shipped = sorted(found.stem for found in SHIPPED.glob("[!_]*.py"))
    if text in shipped:
        return SHIPPED / f"{text}.py", variant if colon else None
    nearest = difflib.get_close_matches(path.stem, shipped, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else f"; there are {', '.join(shipped)}."
    raise ConfigError(
        f"--config={name}: there is no file {text!r}, and no configuration of that name{hint}"
    )


def _call_get_config(name: str) -> ConfigDict:
    path, variant = find_config(name)
    with user_code(path):
        module = import_file(path)
        if not hasattr(module, "get_config"):
            raise ConfigError(f"{path} has no function get_config().")
        config = module.get_config() if variant is None else module.get_config(variant)
    if not isinstance(config, ConfigDict):
        raise ConfigError(
            f"{path}: get_config() returns {type(config).__name__}, not a ConfigDict; start from "
            "sibert_jax.train.config.default_config()."
        )
    return config


@contextlib.contextmanager
def user_code(path: pathlib.Path) -> Iterator[None]:
    """A context that turns errors of a user's Python file into one sentence naming the line.

    Raises:
      ConfigError: in place of any other exception.
    """
    try:
        yield
    except ConfigError:
        raise
    except OSError as error:
        raise ConfigError(f"{error.filename or path} cannot be read: {error.strerror}.") from None
    except SyntaxError as error:
        raise ConfigError(f"{error.filename}, line {error.lineno}: {error.msg}.") from None
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        place = f"{path}, line {lines[-1]}" if lines else str(path)
        text = " ".join(str(error).split())
        raise ConfigError(f"{place}: {type(error).__name__}: {text}.") from None


def import_file(path: pathlib.Path) -> ModuleType:
    """Imports a Python file as a module, wherever it is."""
    loader = importlib.machinery.SourceFileLoader(_MODULE, str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(_MODULE, loader))
    sys.modules[_MODULE] = module  # dataclasses look their module up
    loader.exec_module(module)
    return module


def _check_key(config: ConfigDict, key: str) -> None:
    """Raises ConfigError if there is no such key, suggesting the closest one."""
    section, so_far = config, []
    for name in (part.partition("[")[0] for part in key.split(".")):
        if not isinstance(section, ConfigDict):
            raise ConfigError(
                f"the config has no key {key!r}: {'.'.join(so_far)} is a value, not a section."
            )
        if name not in section:
            place = f" in {'.'.join(so_far)}" if so_far else ""
            nearest = difflib.get_close_matches(name, list(section), n=1)
            full = ".".join([*so_far, *nearest])
            hint = f"did you mean {full!r}?" if nearest else f"there are {', '.join(section)}."
            raise ConfigError(f"the config has no key {name!r}{place}; {hint}")
        section = section[name]
        so_far.append(name)
    if isinstance(section, ConfigDict):
        raise ConfigError(f"{key!r} is a section of the config; set one of its keys.")
