"""Trains from a config, or labels new text with the model that a run has trained.

python -m sibert_jax.main --config=demo --workdir=DIR [--config.KEY=VALUE ...]
python -m sibert_jax.main --workdir=DIR --predict=FILE
"""

import argparse
import sys
import time
from collections.abc import Sequence

from sibert_jax import command
from sibert_jax.files import user_path

STARTED = time.monotonic()


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the overrides of the config; wrong ones end with one sentence."""
    parser = command.parser(
        "sibert_jax.main", __doc__, epilog="Every key of a config: --config=NAME --keys"
    )
    parser.add_argument(
        "--config",
        metavar="NAME[:VARIANT]",
        help="a configuration: a Python file, or the name of one that comes with the package",
    )
    parser.add_argument(
        "--workdir",
        type=user_path,
        metavar="DIR",
        help="directory of the run; the same command again resumes it",
    )
    parser.add_argument(
        "--predict",
        type=user_path,
        metavar="FILE",
        help="file of new text for the model in --workdir; its answers go to stdout",
    )
    parser.add_argument(
        "--compile_only",
        metavar="DEVICES",
        help="compile the step for so many fake devices, or for a TPU topology such as v5e:4x4; "
        "print what it needs, and end",
    )
    parser.add_argument(
        "--profile",
        metavar="START:STOP",
        help="steps to trace into the `profile` folder of the workdir, such as 10:20",
    )
    parser.add_argument(
        "--keys", action="store_true", help="print every key of the config, and end"
    )
    given, overrides = parser.parse_known_args(arguments)
    if (given.config is None) == (given.predict is None):
        command.fail("give --config to train, or --predict to label new text.")
    if given.predict is not None and overrides:
        command.fail(f"stray argument {overrides[0]!r}; --predict has its settings from --workdir.")
    if given.workdir is None and given.compile_only is None and not given.keys:
        command.fail("--workdir is missing: name a directory for the run.")
    if given.keys and given.config is None:
        command.fail("--keys shows the keys of a config: give --config with it.")
    if given.profile is not None and (given.config is None or given.compile_only is not None):
        command.fail("--profile traces training: give --config with it, and no --compile_only.")
    return given, overrides


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains; wrong input and the like end with one sentence."""
    given, overrides = parse(arguments)
    from sibert_jax.runtime.signals import Stopped, StopRequest

    stop = StopRequest()
    stop.catch()  # until the process ends: a late signal must not turn its exit status
    try:
        _train(given, overrides, stop)
    except Stopped as signalled:
        print(f"{signalled}: stopped before the first step; run again to start it", file=sys.stderr)
    finally:
        stop.defer()
    return 0


def _train(given: argparse.Namespace, overrides: list[str], stop) -> None:
    from absl import logging

    logging.set_verbosity(logging.FATAL)  # Orbax logs at length what is reported here as one error
    from sibert_jax.config_file import load_config
    from sibert_jax.errors import EXPECTED
    from sibert_jax.runtime import launch
    from sibert_jax.runtime.profiling import ProfiledSteps
    from sibert_jax.runtime.terminal import say
    from sibert_jax.train.config import distributed_config
    from sibert_jax.train.run import train

    try:
        if given.predict is not None:
            from sibert_jax.tools.predict import predict

            print("\n".join(predict(given.workdir, given.predict, say)))
            return
        config = load_config(given.config, overrides)
        if given.keys:
            from sibert_jax.tools.print_keys import key_lines

            print("\n".join(key_lines(config)))
            return
        if given.compile_only is not None:
            from sibert_jax.tools.compile_only import compile_only, described_devices, markdown

            print(markdown(compile_only(config, described_devices(given.compile_only))))
            return
        profile = None if given.profile is None else ProfiledSteps.parse(given.profile)
        with launch.join(distributed_config(config)) as processes:
            train(
                config,
                given.workdir,
                stop=stop,
                processes=processes,
                started=STARTED,
                profile=profile,
            )
    except EXPECTED as error:
        command.fail(str(error), launch.exit_status(error))


if __name__ == "__main__":
    command.run(main)
