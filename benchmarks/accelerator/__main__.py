"""Checks and times everything that depends on the accelerator; writes one report.

python -m benchmarks.accelerator --out=runs/accelerator

The same command continues on the same device and commit.
"""

import argparse
import contextlib
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from benchmarks import measuring
from benchmarks.accelerator import report
from benchmarks.accelerator.sizes import FULL, TINY, Sizes, meshes
from benchmarks.rival import Rival, RivalError
from sibert_jax import command

PART_SECONDS = 600.0
SAME = ("device", "commit", "jax", "jaxlib")


class Part(NamedTuple):
    """One request to `process.py`, and the name of its results."""

    name: str
    do: str
    arguments: dict


def parts(sizes: Sizes, num_devices: int) -> list[Part]:
    """All parts but the batches, of which each depends on the one before."""
    return [
        *(Part(f"network, {x}", "check_network", {"dtype": x}) for x in sizes.network_dtypes),
        *(
            Part(f"implementations of attention, {x}", "check_attention", {"dtype": x})
            for x in ("float32", "bfloat16")
        ),
        *(
            Part(f"attention, length {x:,}", "attention", {"length": x})
            for x in sizes.attention_lengths
        ),
        *(Part(f"training step, length {x}", "step", {"length": x}) for x in sizes.step_lengths),
        *(
            Part(f"mesh {' × '.join(map(str, x))}", "mesh", {"shape": list(x)})
            for x in meshes(num_devices)
        ),
    ]


class Processes:
    """The process that measures, restarted when it has ended or needs other flags.

    Args:
      start: makes a `Rival` of the flags of process.py.
    """

    def __init__(self, start: Callable[[list[str]], Rival]):
        self._start, self._flags, self._rival = start, None, None

    def ask(self, flags: list[str], do: str, *, afresh: bool = False, **arguments) -> dict:
        """Asks a process with these flags; `afresh`: one that has not been asked before."""
        if afresh or flags != self._flags:
            self.close()
        if self._rival is None:
            self._rival, self._flags = self._start(flags), flags
        try:
            return self._rival.ask(do, **arguments)
        except RivalError:
            self.close()  # whatever has failed may have left something behind
            raise

    def close(self) -> None:
        """Ends the process; only one can hold the devices."""
        if self._rival is not None:
            self._rival.__exit__()
            self._rival = None


class Session:
    """Does the parts that are not done yet, and writes the report after each.

    Args:
      folder: of the report.
      processes: what is asked.
      flags: from `Part.do` to the flags of process.py.
      kept: what is in accelerator.json.
      minutes: after these no part is started.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        processes: Processes,
        flags: Callable[[str], list[str]],
        kept: dict,
        minutes: float,
    ):
        self.folder, self.processes, self.flags, self.kept = folder, processes, flags, kept
        self._since, self._seconds = time.monotonic(), 60 * minutes

    def do(self, part: Part, *, afresh: bool = False) -> dict | None:
        """Does one part unless it is done; returns its results, None if the time is over."""
        done = self.kept["parts"]
        if part.name in done:
            return done[part.name]
        began = time.monotonic()
        if began - self._since >= self._seconds:
            self.kept["missing"].append(part.name)
            return None
        found = {"do": part.do}
        try:
            request = part.arguments | {"tiny": self.kept["tiny"]}
            found |= self.processes.ask(self.flags(part.do), part.do, afresh=afresh, **request)
        except RivalError as error:
            found["error"] = f"{part.name}: {error}"
        now = time.monotonic()
        done[part.name] = found | {"seconds": round(now - began, 1)}
        minutes, seconds = divmod(int(now - self._since), 60)
        outcome = found["error"] if "error" in found else f"done in {now - began:.0f} s"
        measuring.say(f"[{minutes:2d}:{seconds:02d}] {part.name}: {outcome}")
        report.write(self.folder, self.kept)
        return found

    def everything(self, sizes: Sizes, num_devices: int) -> None:
        """Does all parts, and the batches until one fails, each in a process of its own."""
        self.kept["missing"] = []
        for part in parts(sizes, num_devices):
            self.do(part)
        for batch_size in doublings(*sizes.batches):
            part = Part(f"batch {batch_size:,}", "batch", {"batch_size": batch_size})
            found = self.do(part, afresh=True)
            if found is None or "error" in found:
                break
        report.write(self.folder, self.kept)
        report.draw(self.folder, self.kept)


def doublings(first: int, last: int) -> Iterator[int]:
    """The first number and its doubles, up to the last."""
    while first <= last:
        yield first
        first *= 2


def kept_results(path: pathlib.Path, machine: dict, tiny: bool, fresh: bool) -> dict:
    """The contents of accelerator.json, or new ones; fails if another machine or commit made it."""
    new = {"machine": machine, "tiny": tiny, "missing": [], "parts": {}}
    if fresh or not path.exists():
        return new
    kept = json.loads(path.read_text(encoding="utf-8"))
    for what, was, now in [
        *((key, kept["machine"][key], machine[key]) for key in SAME),
        ("tiny", kept["tiny"], tiny),
    ]:
        if was != now:
            command.fail(
                f"{path} was made with {what}={was}, and this is {now}; give another --out, or "
                "--fresh to start over."
            )
    return kept


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = command.parser("benchmarks.accelerator", __doc__)
    parser.add_argument("--out", type=pathlib.Path, default="runs/accelerator", help="folder")
    parser.add_argument(
        "--minutes", type=float, default=25.0, help="no part is started after these"
    )
    parser.add_argument("--tiny", action="store_true", help="rehearse at tiny sizes, as on a CPU")
    parser.add_argument("--fresh", action="store_true", help="start over instead of continuing")
    return parser.parse_args(arguments)


def main(
    arguments: Sequence[str] | None = None, start: Callable[[list[str]], Rival] | None = None
) -> int:
    """Runs the command; returns 1 if a check has failed.

    Args:
      arguments: the words after the command; None: those of this process.
      start: makes the process that measures from its flags; None: `process.py`.
    """
    given = parse(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    processes = Processes(start or _start)
    with tempfile.TemporaryDirectory() as programs, contextlib.closing(processes):
        try:
            found = processes.ask([], "machine")
        except RivalError as error:
            command.fail(f"JAX cannot open the devices: {error}", 1)
        platform, machine = found["platform"], found["machine"]
        tiny = given.tiny or platform == "cpu"
        if tiny and not given.tiny:
            measuring.say("JAX finds no accelerator here, so this is a rehearsal at tiny sizes.")
        kept = kept_results(given.out / "accelerator.json", machine, tiny, given.fresh)

        def flags(do: str) -> list[str]:
            if platform == "cpu":
                return [f"--cpu={programs}"]
            return ["--deterministic"] if platform == "gpu" and do.startswith("check") else []

        session = Session(given.out, processes, flags, kept, given.minutes)
        session.everything(TINY if tiny else FULL, found["num_devices"])
    print(report.markdown(kept))
    measuring.say(f"report: {given.out / 'accelerator.md'}")
    return int(report.check_failed(kept["parts"]))


def _start(flags: list[str]) -> Rival:
    return Rival([sys.executable, "-m", "benchmarks.accelerator.process", *flags], PART_SECONDS)


if __name__ == "__main__":
    command.run(main)
