"""Trains from a config, or applies the model of a run to new text.

Keys are set with --config.KEY=VALUE; --show_config lists them.
"""

import argparse
import sys
import time
from collections.abc import Sequence

from sibert_jax import command
from sibert_jax.files import user_path

STARTED = time.monotonic()
USAGE = """python -m sibert_jax.main --config=NAME --workdir=DIR
       python -m sibert_jax.main --workdir=DIR --predict=FILE
       python -m sibert_jax.main --workdir=DIR --embed=FILE --out=NAME.npy"""
OPTIONS = (  # name, metavar, type, help of one line, so that all of it fits on a screen
    ("config", "NAME[:VAR]", str, "a Python file, or the name of a shipped config"),
    ("workdir", "DIR", user_path, "directory of the run; the same command resumes it"),
    ("predict", "FILE", user_path, "file of new texts; predictions go to stdout"),
    ("embed", "FILE", user_path, "file of texts, one per line; vectors go to --out"),
    ("out", "NAME.npy", user_path, "file for the vectors; the texts go to NAME.txt"),
    ("step", "best|N", str, "for --predict and --embed (default: the newest)"),
    ("compile_only", "N", str, "memory and FLOPs on N simulated devices, or v5e:4x4"),
    ("profile", "A:B", str, "trace these steps into DIR/profile, such as 10:20"),
)


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Returns the options and the config overrides; exits with one sentence on wrong ones."""
    parser = command.parser("sibert_jax.main", __doc__, usage=USAGE)
    for name, metavar, kind, text in OPTIONS:
        parser.add_argument(f"--{name}", metavar=metavar, type=kind, help=text)
    parser.add_argument(
        "--show_config",
        action="store_true",
        help="print each key: its value, origin and meaning",
    )
    given, overrides = parser.parse_known_args(arguments)
    used = [name for name in ("config", "predict", "embed") if getattr(given, name) is not None]
    if len(used) != 1:
        command.fail(
            "give exactly one of --config (to train), --predict and --embed (for new text)."
        )
    for word in overrides if given.config is None else ():
        if given.predict is None or not word.startswith("--config.task."):
            command.fail(
                f"unknown argument {word!r}; --{used[0]} takes its settings from --workdir."
            )
    if given.workdir is None and given.compile_only is None and not given.show_config:
        command.fail("--workdir is missing; name the directory of the run.")
    if given.show_config and given.config is None:
        command.fail("--show_config needs --config=NAME, whose keys it prints.")
    if given.profile is not None and (given.config is None or given.compile_only is not None):
        command.fail(
            "--profile traces training, so it needs --config and does not go with --compile_only."
        )
    if (given.embed is None) != (given.out is None):
        command.fail("--embed=FILE and --out=NAME.npy must be given together.")
    if given.step is not None and given.config is not None:
        command.fail(
            "--step is for --predict and --embed; training resumes from the newest checkpoint."
        )
    return given, overrides


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains or predicts; expected errors end with one sentence."""
    given, overrides = parse(arguments)
    from sibert_jax.runtime.signals import Stopped, StopRequest

    stop = StopRequest()
    stop.catch()  # until the process ends: a late signal must not change the exit status
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

            step, path = given.step, given.predict
            lines = predict(given.workdir, path, say, step=step, overrides=overrides)
            print("\n".join(lines))
            return
        if given.embed is not None:
            from sibert_jax.inference.embed import embed

            embed(given.workdir, given.embed, given.out, given.step, say)
            return
        if given.show_config:
            from sibert_jax.tools.show_config import config_lines

            print("\n".join(config_lines(given.config, overrides, given.workdir)))
            return
        config = load_config(given.config, overrides)
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
