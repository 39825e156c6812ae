"""Trains from a config, or labels new text with the model that a run has trained.

python -m sibert_jax.main --config=configs/demo.py --workdir=DIR
python -m sibert_jax.main --workdir=DIR --predict=FILE
"""

import re
import sys
import time
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from sibert_jax.train.errors import WRONG_INPUT
from sibert_jax.train.signals import Stopped, StopRequest

STARTED = time.monotonic()

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run; a second call resumes it.")
_PREDICT = flags.DEFINE_string(
    "predict", None, "File of new text for the model in --workdir; its answers go to stdout."
)
_COMPILE_ONLY = flags.DEFINE_string(
    "compile_only",
    None,
    "Compile the step for so many fake devices, or for a TPU topology such as v5e:4x4; say what "
    "it needs, and end.",
)
_PROFILE = flags.DEFINE_string(
    "profile", None, "START:STOP, steps to trace into the workdir's `profile`, such as 10:20."
)


def parse(argv: list[str]) -> list[str]:
    """Parses flags; a key that does not exist or a stray argument ends with one sentence."""
    flags.register_multi_flags_validator(
        ["config", "predict"],
        lambda given: (given["config"] is None) != (given["predict"] is None),
        "give --config to train, or --predict to label new text",
    )
    flags.register_multi_flags_validator(
        ["workdir", "config", "compile_only"],
        lambda given: (
            given["workdir"] is not None
            or (given["config"] is not None and given["compile_only"] is not None)
        ),
        "Flag --workdir must have a value other than None.",
    )
    flags.register_multi_flags_validator(
        ["config", "compile_only", "profile"],
        lambda given: (
            given["profile"] is None
            or (given["config"] is not None and given["compile_only"] is None)
        ),
        "--profile traces training: give --config with it, and no --compile_only",
    )
    try:
        rest = flags.FLAGS(argv)
        if _CONFIG.value is not None:
            _CONFIG.value.lock()  # a file that failed to load raises only now
    except flags.Error as error:
        # What a config file refuses by ValueError, such as a variant, comes with a traceback.
        refusal = re.search(r"^ValueError: (.+)", str(error).rstrip().splitlines()[-1])
        fail(refusal[1] if refusal else f"{error}")
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
    stop = StopRequest()
    stop.catch()  # until the process ends: a late signal must not turn its exit status
    try:
        _train(stop)
    except Stopped as signalled:
        print(f"{signalled}: stopped before the first step; run again to go on", file=sys.stderr)
    finally:
        stop.defer()


def _train(stop: StopRequest) -> None:
    logging.set_verbosity(logging.FATAL)  # Orbax tells at length what is told here in a sentence
    from sibert_jax.train import build, launch
    from sibert_jax.train.compile_only import compile_only, described_devices, markdown
    from sibert_jax.train.loop import train
    from sibert_jax.train.metrics import say
    from sibert_jax.train.predict import predict
    from sibert_jax.train.profiling import ProfiledSteps

    try:
        if _PREDICT.value is not None:
            print("\n".join(predict(_WORKDIR.value, _PREDICT.value, say)))
            return
        if _COMPILE_ONLY.value is not None:
            devices = described_devices(_COMPILE_ONLY.value)
            print(markdown(compile_only(_CONFIG.value, devices)))
            return
        profile = None if _PROFILE.value is None else ProfiledSteps.parse(_PROFILE.value)
        with launch.join(build.run_config(_CONFIG.value).distributed) as hosts:
            train(
                _CONFIG.value,
                _WORKDIR.value,
                stop=stop,
                hosts=hosts,
                started=STARTED,
                profile=profile,
            )
    except launch.EXPECTED as error:
        fail(str(error), launch.exit_status(error))


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
