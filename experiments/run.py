"""Runs a claim: python experiments/run.py CLAIM --scale=minutes|hours|gpu

Prints the plan, runs what is left of it and draws. Results are lines of WORKDIR/results.jsonl, one
a point; the picture (results.png) and the table (results.md) are made of these lines alone. The
same command continues where it was stopped or killed. experiments/README.md lists the claims.
"""

import os
import pathlib
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # `experiments` as a package

import jax
import matplotlib.style
from matplotlib.figure import Figure

from experiments import claims
from sibert_jax import command
from sibert_jax.errors import FAULT, ConfigError, DataError
from sibert_jax.files import user_path
from sibert_jax.report.figure import STYLE
from sibert_jax.runtime.signals import Stopped
from sibert_jax.tools.sweep_runs import Sweep

BEGIN, END = "<!-- results -->\n", "<!-- end of results -->"


class RunsFailed(RuntimeError):
    """Runs that failed, or whose rerun gave a different result."""


class Job(NamedTuple):
    """The points of a claim at a scale.

    Attributes:
      claim: name of its folder.
      module: its `claim.py`.
      scale: minutes, hours or gpu.
      points: the settings of each.
      known: what placeholders in them stand for.
      workdir: of the runs of trained points.
      place: folder of results, picture and table.
      next_round: points that follow from the results of these, from scale and lines; None: none do.
    """

    claim: str
    module: ModuleType
    scale: str
    points: list[dict]
    known: dict[str, str]
    workdir: pathlib.Path
    place: pathlib.Path
    next_round: Callable[[str, list[dict]], list[dict]] | None = None

    @property
    def results(self) -> claims.Results:
        """Of this claim, at all scales."""
        return claims.Results(self.place / "results.jsonl")

    def plan(self) -> list[dict]:
        """All points; those of the next round as the results so far have it."""
        if self.next_round is None:
            return self.points
        found = self.results.of(self.claim, self.scale, self.points)
        return self.points + self.next_round(self.scale, found)

    def lines(self) -> list[dict]:
        """The results so far, in the order of the plan."""
        return self.results.of(self.claim, self.scale, self.plan())

    def left(self, points: list[dict]) -> list[dict]:
        """Those of some points that have no result."""
        done = [line["point"] for line in self.results.of(self.claim, self.scale, points)]
        return [point for point in points if point not in done]

    def print_plan(self, workers: int) -> None:
        """What is left, in tokens and in time."""
        points = self.plan()
        left, tokens, seconds = self.left(points), 0, 0.0
        for point in left:
            cost = 0, getattr(self.module, "SECONDS", {}).get(self.scale, 0.0)
            if claims.is_trained(point):
                cost = claims.cost(claims.sweep_point(point, self.known), self.scale)
                print(f"  {claims.run_name(point)}: {cost[0]:,} tokens, {cost[1] / 60:.1f} min")
            tokens, seconds = tokens + cost[0], seconds + cost[1]
        print(
            f"{self.claim}, {self.scale}: {len(points)} points, {len(left)} to run, "
            f"{tokens:,} tokens, about {seconds / 60 / workers:.1f} minutes with {workers} at once",
            flush=True,
        )

    def run(self, workers: int) -> None:
        """Runs the points that are left, and then those of the next round."""
        self.place.mkdir(parents=True, exist_ok=True)
        self._run(self.left(self.points), workers)
        self._run(self.left(self.plan()), workers)

    def _run(self, left: list[dict], workers: int) -> None:
        runs = [point for point in left if claims.is_trained(point)]
        for point in (point for point in left if point not in runs):
            started = time.monotonic()
            result = self.module.compute(claims.filled(point, self.known))
            self._append(point, result, claims.computed_provenance(time.monotonic() - started))
        later = [point for point in runs if claims.follows(point)]
        self._train([point for point in runs if point not in later], workers)
        self._train(later, workers)

    def _train(self, points: list[dict], workers: int) -> None:
        runs = [claims.sweep_point(point, self.known) for point in points]
        for run in runs:
            claims.run_of(run)
        cores = () if self.scale == "gpu" else sorted(os.sched_getaffinity(0))[:workers]
        try:
            failed = Sweep(self.workdir, runs).run(workers, cores)
        finally:
            for run in runs:
                if found := claims.trained(run, self.workdir, self.module):
                    self._append(run.overrides, *found)
        if failed:
            raise RunsFailed(f"{len(failed)} of {len(runs)} runs failed: {'; '.join(failed)}")

    def _append(self, point: dict, result: dict, provenance: dict) -> None:
        line = {"claim": self.claim, "scale": self.scale, "point": point}
        self.results.append(line | {"result": result, "provenance": provenance})

    def draw(self) -> list[pathlib.Path]:
        """Picture and table of the results so far."""
        lines = self.lines()
        if not lines:
            raise ConfigError(f"{self.results.path} has no result of --scale={self.scale} to draw.")
        picture = self.place / "results.png"
        with matplotlib.style.context(STYLE, after_reset=True):
            figure = Figure(figsize=(16, 6), dpi=100, layout="constrained")
            self.module.draw(figure, lines)
            figure.savefig(picture)
        table = self.module.table(lines)
        page, text = self.place / "results.md", table
        if self.place.parent == claims.HERE:
            page = self.place / "README.md"
            before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
            text = f"{before}{BEGIN}{table}\n![results](results.png)\n{END}{rest.partition(END)[2]}"
        page.write_text(text, encoding="utf-8")
        return [picture, page]

    def verify(self, count: int) -> None:
        """Runs lines chosen at random once more and compares every bit of their results."""
        lines = self.lines()
        if len(lines) < count:
            raise ConfigError(f"--verify={count}: {self.results.path} has {len(lines)} results.")
        chosen = random.sample(lines, count)
        with tempfile.TemporaryDirectory() as folder:
            points, path = [line["point"] for line in chosen], pathlib.Path(folder)
            again = self._replace(points=points, workdir=path, place=path, next_round=None)
            again.run(workers=1)
            for line, other in zip(chosen, again.lines(), strict=True):
                kept = {k: v for k, v in line["result"].items() if k not in claims.CLOCKED}
                wrong = [k for k, v in kept.items() if other["result"][k] != v]
                if wrong:
                    raise RunsFailed(f"{line['point']}: a rerun has another {', '.join(wrong)}.")
                print(f"{line['point']}: the same, bit for bit")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is left of a claim; 1 if a run failed or a rerun differs."""
    parser = command.parser("experiments.run", __doc__)
    parser.add_argument("claim", metavar="CLAIM", help="a folder of experiments/")
    parser.add_argument("--scale", required=True, help="minutes, hours (two cores) or gpu")
    parser.add_argument("--workdir", metavar="DIR", help="of the claim; default: runs/CLAIM")
    parser.add_argument("--data", default="", metavar="TEXT", help="folder, or text files")
    parser.add_argument("--workers", type=int, default=1, help="runs at once, each on a core")
    parser.add_argument("--plan", action="store_true", help="only print the plan")
    parser.add_argument("--draw", action="store_true", help="only draw the results so far")
    parser.add_argument("--publish", action="store_true", help="results go into experiments/CLAIM")
    parser.add_argument("--verify", type=int, metavar="N", help="only run N results once more")
    given = parser.parse_args(arguments)
    jax.config.update("jax_platforms", "cpu")  # an accelerator is left to the runs
    try:
        module = claims.load(given.claim, given.scale)
        cores = len(os.sched_getaffinity(0))
        if not 1 <= given.workers <= cores:
            raise ConfigError(f"--workers={given.workers} must be 1 to {cores}, a core each.")
        workdir = user_path(given.workdir or f"runs/{given.claim}").absolute()
        known = claims.placeholders(given.data, workdir)
        place = claims.HERE / given.claim if given.publish else workdir
        points = module.points(given.scale)
        later = getattr(module, "next_round", None)
        job = Job(given.claim, module, given.scale, points, known, workdir, place, later)
        if given.verify:
            job.verify(given.verify)
            return 0
        if not given.draw:
            job.print_plan(given.workers)
            if given.plan:
                return 0
            job.run(given.workers)
        for path in job.draw():
            print(path)
    except (ConfigError, DataError) as error:
        command.fail(str(error))
    except Stopped as signalled:
        print(f"{signalled}: run again to resume", file=sys.stderr)
    except RunsFailed as failed:
        command.fail(str(failed), status=FAULT)
    return 0


if __name__ == "__main__":
    command.run(main)
