"""What the claims share: their points, the file of their results, figures of a trained run.

A claim is a folder with a `claim.py`; README.md of this folder says what is in it.
"""

import dataclasses
import fcntl
import hashlib
import importlib
import json
import math
import pathlib
import re
import statistics
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax

from sibert_jax.config_file import load_config
from sibert_jax.errors import ConfigError
from sibert_jax.files import user_path
from sibert_jax.report.downsample import downsample
from sibert_jax.report.figures_of_merit import figures_of_merit
from sibert_jax.report.metrics_file import Series
from sibert_jax.report.run_folder import read_run
from sibert_jax.runtime.provenance import describe_code
from sibert_jax.tools.sweep_runs import Point
from sibert_jax.train import sharding
from sibert_jax.train.config import RunConfig, run_config
from sibert_jax.train.optimizer import build_optimizer
from sibert_jax.train.resolve import resolve
from sibert_jax.train.trainer import Shapes, bare_task

HERE = pathlib.Path(__file__).parent
SCALES = ("minutes", "hours", "gpu")
CURVE_POINTS = 40  # of a curve in a line of results
CURVES = ("eval/", "train/mlm_loss", "optim/param_norm", "optim/equilibrium_norm")
CURVES += ("optim/relative_grad_norm", "optim/clipped", "optim/rotation")
# FLOP/s of a run that the estimates of cost assume; start and compilation come on top.
SPEED = {"minutes": 2e10, "hours": 3e10, "gpu": 1e14}
START_SECONDS = 30.0
QUANTIZE_SECONDS = "quantize_seconds"
CLOCKED = ("tokens_per_second", "mfu", QUANTIZE_SECONDS)  # figures that no rerun repeats


def load(name: str, scale: str) -> ModuleType:
    """The `claim.py` of a claim; raises ConfigError if there is no such claim, or no such scale."""
    names = sorted(path.parent.name for path in HERE.glob("*/claim.py"))
    if name not in names:
        raise ConfigError(f"claim {name!r} is unknown; choose one of {', '.join(names)}.")
    if scale not in SCALES:
        raise ConfigError(f"--scale={scale} is unknown; choose one of {', '.join(SCALES)}.")
    return importlib.import_module(f"experiments.{name}.claim")


def digest(settings: dict) -> str:
    """Eight hexadecimal digits that stand for settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


class Results:
    """A file with a JSON object a line, which several processes may append to.

    Args:
      path: of the file; it need not be there yet.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path

    def lines(self) -> list[dict]:
        """All complete lines; a kill may have left half of the last one."""
        if not self.path.exists():
            return []
        text = self.path.read_text(encoding="utf-8")
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def of(self, claim: str, scale: str, points: Sequence[dict]) -> list[dict]:
        """The lines of these points, in their order."""
        keyed = {digest(line["point"]): line for line in self.lines() if line["scale"] == scale}
        found = [keyed.get(digest(point)) for point in points]
        return [line for line in found if line is not None and line["claim"] == claim]

    def append(self, line: dict) -> None:
        """Adds a line, unless there is one of the same claim, scale and point."""
        words = json.dumps(_finite(line), ensure_ascii=False, separators=(",", ":"))
        with self.path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not self.of(line["claim"], line["scale"], [line["point"]]):
                file.truncate(self.path.read_bytes().rfind(b"\n") + 1)
                file.write(words.encode() + b"\n")


def _finite(value: Any) -> Any:
    """The value as JSON has it: null for what is not a finite number."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# Trained points: a config, overrides, and "arm", the name that the picture gives it.


def text(scale: str) -> dict:
    """Overrides that say which text a pretraining point reads."""
    if scale == "minutes":
        return {"data.source": "builtin"}
    return {"data.source": "text", "data.path": "{train}", "data.valid_path": "{valid}"}


def run_name(point: dict) -> str:
    """The folder of a point's run, below the workdir's `runs`."""
    arm = re.sub(r"[^\w=.+-]", "_", point["arm"])
    return f"{arm}-{digest(point)}"


def placeholders(data: str, workdir: pathlib.Path) -> dict[str, str]:
    """What {train}, {valid}, {data} and {runs} in a point's values stand for.

    Args:
      data: a folder, whose text is in `*_train.txt*` and `*_valid.txt*` or, without these, in
        `*.txt*`, of the folder itself or of its `text`; or the names of text files with wildcards,
        separated by commas; or "": none.
      workdir: of the claim.
    """
    known = {"runs": str(workdir / "runs")}
    if not data:
        return known
    folder = user_path(data)
    if not folder.is_dir():
        return known | {"train": data, "valid": ""}
    known["data"] = str(folder)
    text_folder = folder / "text" if (folder / "text").is_dir() else folder
    for part in ("train", "valid"):
        if list(text_folder.glob(f"*_{part}.txt*")):
            known[part] = str(text_folder / f"*_{part}.txt*")
    if "train" not in known and list(text_folder.glob("*.txt*")):
        known["train"] = str(text_folder / "*.txt*")
    if "train" not in known:
        raise ConfigError(f"--data={data} has no text; name a folder with *.txt or *.txt.xz files.")
    return {"valid": "", **known}


def filled(point: dict, known: dict[str, str]) -> dict:
    """A point with the placeholders in its values filled in."""

    def fill(key: str, value):
        if not isinstance(value, str):
            return value
        try:
            return value.format_map(known)
        except KeyError as error:
            raise ConfigError(
                f"{point['arm']} reads {key}={value}; say where {{{error.args[0]}}} is with "
                "--data=FOLDER, or --data='*.txt' for text."
            ) from None

    return {key: fill(key, value) for key, value in point.items()}


def is_trained(point: dict) -> bool:
    """Whether a point is a run of training; if not, its claim computes it."""
    return {"arm", "config"} <= point.keys()


def sweep_point(point: dict, known: dict[str, str]) -> Point:
    """The run of a trained point, for `Sweep`."""
    settings = filled(point, known).items()
    overrides = {k: v for k, v in settings if k not in ("arm", "config")}
    words = [f"--config.{key}={value}" for key, value in overrides.items()]
    return Point(run_name(point), point, (f"--config={point['config']}", *words))


def follows(point: dict) -> bool:
    """Whether a point starts from the run of another one."""
    return "{runs}" in str(point)


def run_of(point: Point) -> RunConfig:
    """The checked config of a point; raises ConfigError with one sentence."""
    config, *overrides = point.arguments
    try:
        return run_config(resolve(load_config(config.removeprefix("--config="), overrides)))
    except ConfigError as error:
        raise ConfigError(f"{point.overrides['arm']}: {error}") from None


def cost(point: Point, scale: str) -> tuple[int, float]:
    """Tokens of a run, and an estimate of its seconds; (0, 0) where they cannot be known yet."""
    if follows(point.overrides):
        return 0, 0.0
    run = run_of(point)
    tokens = run.train.num_steps * run.train.global_batch_size * run.data.seq_len
    flops = tokens * bare_task(run).flops_per_token(run.data.seq_len)
    return tokens, flops / SPEED[scale] + START_SECONDS if tokens else 0.0


def state_bytes(run: RunConfig) -> int:
    """Bytes of the optimizer's state, counters and norms included, from abstract shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(optimizer_state(run)))


def optimizer_state(run: RunConfig) -> Any:
    """The optimizer's state of a run as ShapeDtypeStructs; nothing is allocated."""
    task = bare_task(run)
    shapes = Shapes.of(run, sharding.make_mesh(1, 1, 1, jax.devices()[:1]), task)
    run = run.with_num_steps(10**6)  # any length, where it is one in epochs
    optim = run.optim
    if optim.eta_lambda:  # one gradient would set the rates
        optim = optim.with_rates(1.0, 0.5)
    optimizer = build_optimizer(optim, run.train.num_steps, shapes.mask)
    return jax.eval_shape(optimizer.tx.init, shapes.params)


def trained(point: Point, workdir: pathlib.Path, claim: ModuleType) -> tuple[dict, dict] | None:
    """Result and provenance of a point that a `Sweep` ran in this folder; None: not finished.

    The result holds every metric of the last evaluation, the figures of merit, the curves, and what
    the claim's own `measure` finds in the run, if it has one.
    """
    path = workdir / "results" / f"{point.name}.json"
    if not path.exists():
        return None
    outcome, folder = json.loads(path.read_text()), workdir / "runs" / point.name
    config, described, goodput = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("config", "run", "goodput")
    )
    run = read_run(folder)
    figures = dataclasses.asdict(figures_of_merit(run))
    measures = hasattr(claim, "measure") and outcome["status"] == "finished"
    if outcome["status"] != "finished":  # the last evaluation may still have been finite
        figures |= {"eval_loss": None, "accuracy": None}
    series = {name: run.series[name] for name in sorted(run.series) if name.startswith(CURVES)}
    result = {
        "status": outcome["status"],
        "config": digest(_portable(config)),
        "data": described["data_fingerprint"],
        "num_parameters": described["num_parameters"],
        "state_bytes": state_bytes(run_config(config)),
        "learning_rate": described["learning_rate"],
        "weight_decay": described["weight_decay"],
        **{name: value for name, value in figures.items() if name not in CLOCKED},
        "last": outcome["results"]["last"] if "results" in outcome else {},
        "curves": {name: curve(found) for name, found in series.items()},
        **(claim.measure(run) if measures else {}),
    }
    return result, _provenance(described, sum(goodput["seconds"].values()))


def _portable(config: dict) -> dict:
    """A config without the places of files."""
    places = ("path", "valid_path", "test_path", "cache_dir", "vocab")  # the data has a fingerprint
    data = {k: v for k, v in config["data"].items() if k not in places}
    train = {k: v for k, v in config["train"].items() if k != "compilation_cache_dir"}
    start = config["checkpoint"] | {"init_from": bool(config["checkpoint"]["init_from"])}
    return config | {"data": data, "train": train, "checkpoint": start}


def curve(series: Series) -> list[list[float]]:
    """[steps, means] over at most CURVE_POINTS intervals, in six digits."""
    points = downsample(series, CURVE_POINTS)
    return [[float(f"{x:.6g}") for x in xs] for xs in (points.steps, points.mean)]


def computed_provenance(seconds: float) -> dict:
    """Of a point that this process computed."""
    devices = jax.devices()
    where = {"device_kind": devices[0].device_kind, "devices": devices}
    return _provenance({**describe_code(), **where}, seconds)


def _provenance(described: dict, seconds: float) -> dict:
    return {
        "commit": described["git_commit"],
        "dirty": described["git_dirty"],
        "jax": described["versions"]["jax"],
        "hardware": f"{len(described['devices'])} × {described['device_kind']}",
        "seconds": round(seconds, 1),
    }


def by_arm(lines: Sequence[dict]) -> dict[str, list[dict]]:
    """The lines of each arm, over its seeds, in the order of the plan."""
    arms: dict[str, list[dict]] = {}
    for line in lines:
        arms.setdefault(line["point"]["arm"], []).append(line)
    return arms


def legend(axis, **options) -> None:
    """A legend, if there is anything to name: results may be few yet."""
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, **options)


def spread(values: Sequence[float | None], digits: int = 3) -> str:
    """Mean ± sample standard deviation, and how many of the runs have no value."""
    known = [value for value in values if value is not None]
    if not known:
        return "diverged" if values else "–"
    shown = f"{statistics.fmean(known):.{digits}f}"
    if len(known) > 1:
        shown += f" ± {statistics.stdev(known):.{digits}f}"
    return shown if len(known) == len(values) else f"{shown} ({len(values) - len(known)} diverged)"


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table: the first column left, the others right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)
