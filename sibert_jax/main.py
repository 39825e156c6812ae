"""Trains from a config: python -m sibert_jax.main --config=configs/demo.py --workdir=DIR."""

import re
import sys
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from sibert_jax.train.errors import WRONG_INPUT

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run; a second call resumes it.")


def parse(argv: list[str]) -> list[str]:
    """Parses flags; a key that does not exist or a stray argument ends with one sentence."""
    flags.mark_flags_as_required(["config", "workdir"])
    try:
        rest = flags.FLAGS(argv)
        _CONFIG.value.lock()  # a file that failed to load raises only now
    except flags.Error as error:
        fail(f"{error}")
    except AttributeError as error:
        fail(unknown_key(str(error)))
    except (OSError, TypeError) as error:
        fail(f"--config: {' '.join(str(error).split())}")
    if rest[1:]:
        fail(f"stray argument {rest[1]!r}; overrides look like --config.optim.learning_rate=1e-3.")
    return rest


def unknown_key(text: str) -> str:
    """The sentence for an override that names no key, from the text of the AttributeError."""
    key = re.search(r"'(\w+)'", text.replace("\\", ""))
    nearest = re.search(r'Did you mean "(\w+)"', text)
    hint = f"; did you mean {nearest[1]!r}?" if nearest else "."
    return f"the config has no key {key[1] if key else text!r}{hint}"


def fail(sentence: str, status: int = WRONG_INPUT) -> NoReturn:
    """Ends the program with a sentence on stderr."""
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(status)


def main(argv: list[str]) -> None:
    """Trains; what goes wrong through no fault of the code is told in one sentence."""
    del argv
    logging.set_verbosity(logging.ERROR)
    from sibert_jax.train import build, launch
    from sibert_jax.train.loop import train

    try:
        with launch.join(build.run_config(_CONFIG.value).distributed) as hosts:
            train(_CONFIG.value, _WORKDIR.value, hosts=hosts)
    except launch.EXPECTED as error:
        fail(str(error), launch.exit_status(error))


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
