"""The Markdown report: one row per run, differing settings, notes, and a reading guide."""

import json
import math
from collections.abc import Callable, Sequence

from sibert_jax.report.figures_of_merit import FiguresOfMerit, Pair, figures_of_merit
from sibert_jax.report.run_folder import Run, check_comparable, distinct_names

MISSING = "–"

READING_GUIDE = """\
## How to read it
- **Loss**: *train* is the mean over the last 5 % of the steps; *eval* is the last evaluation and \
the best one (with its step), both on held-out text with fixed masks, in nats. Compare runs by \
*eval*.
- **‖x‖**: the norm of the scale-invariant parameters in the last row, and the norm at which \
gradient steps and weight decay balance, ‖x‖² = √(η/(λ(2−ηλ)))·σ with the measured σ = ‖g‖·‖x‖. \
A run follows it after about 1/(2ηλ) steps; when η falls faster than that, the measured norm lags \
behind and is the larger one.
- **Rotation**: the angle between the weights before and after a step, in radians, and its value \
at equilibrium, √(2ηλ); medians over the run. A larger angle means that the norm is still too \
small or that gradients are spiky; a smaller one that the norm is still too large and training is \
slower than ηλ suggests.
- **Clip rate**: the fraction of all steps at which ‖g‖/‖x‖ was above √(2Cλ/η). A few percent are \
healthy (paper: 1.5 %, C = 4); most steps are clipped only while a norm that started too small \
grows.
- **Dead rows**: the fraction of attention rows without a positive score (last 5 % of the steps); \
they attend to all keys equally. A growing fraction indicates a problem.
- **Euler residual**: the largest |⟨x, g⟩|/(‖x‖·‖g‖); rounding leaves about 1e-7, larger values \
mean that the loss is not scale invariant.
"""


def table(runs: Sequence[Run]) -> str:
    """Report on runs in Markdown.

    Args:
      runs: runs from `read_run`, all of the same task.

    Returns:
      The table of runs, the settings in which they differ, notes on what was left out, and a
      reading guide.

    Raises:
      UnreadableRun: the runs are of different tasks.
    """
    check_comparable(runs)
    names = distinct_names(runs)
    parts = [_figures(runs, names), _differences(runs, names), _notes(runs, names), READING_GUIDE]
    return "\n".join(part for part in parts if part)


def _figures(runs: Sequence[Run], names: Sequence[str]) -> str:
    """Return a table with one row per run, without columns that no run fills."""
    figures = [figures_of_merit(run) for run in runs]
    columns = [("run", list(names)), ("arch", [_text(run.setting("model.arch")) for run in runs])]
    columns.append(("optimizer", [_text(run.setting("optim.name")) for run in runs]))
    columns.append(("steps", [_steps(run) for run in runs]))
    columns += [(title, [cell(f) for f in figures]) for title, cell in COLUMNS]
    columns = [
        (title, cells)
        for title, cells in columns
        if title == "run" or any(cell != MISSING for cell in cells)
    ]
    left_aligned = {"run", "arch", "optimizer"}
    header = [title for title, _ in columns]
    rule = [":--" if title in left_aligned else "--:" for title in header]
    body = [[cells[i] for _, cells in columns] for i in range(len(runs))]
    return "## Runs\n" + _markdown([header, rule, *body])


def _number(value: float | None, form: str) -> str:
    if value is None:
        return MISSING
    return format(value, form) if math.isfinite(value) else f"**{value}**"


def _pair(pair: Pair, form: str) -> str:
    if pair.measured is None:
        return MISSING
    return f"{_number(pair.measured, form)} / {_number(pair.predicted, form)}"


def _tokens(tokens: int | None) -> str:
    if tokens is None:
        return MISSING
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if tokens >= size:
            return f"{tokens / size:.3g} {letter}"
    return str(tokens)


def _best(figures: FiguresOfMerit) -> str:
    if figures.best_eval_loss is None:
        return MISSING
    return f"{figures.best_eval_loss:.4f} ({figures.best_eval_step:,})"


COLUMNS: tuple[tuple[str, Callable[[FiguresOfMerit], str]], ...] = (
    ("tokens", lambda f: _tokens(f.tokens)),
    ("train loss", lambda f: _number(f.train_loss, ".4f")),
    (
        "train MLM loss",
        lambda f: MISSING if f.train_nsp_loss is None else _number(f.train_mlm_loss, ".4f"),
    ),
    ("train NSP loss", lambda f: _number(f.train_nsp_loss, ".4f")),
    ("eval loss", lambda f: _number(f.eval_loss, ".4f")),
    ("best eval loss (step)", _best),
    ("accuracy", lambda f: _number(f.accuracy, ".2%")),
    ("NSP accuracy", lambda f: _number(f.nsp_accuracy, ".2%")),
    ("clip rate", lambda f: _number(f.clip_rate, ".2%")),
    ("‖x‖ / predicted", lambda f: _pair(f.weight_norm, ".4g")),
    ("rotation / predicted", lambda f: _pair(f.rotation, ".3g")),
    ("dead rows", lambda f: _number(f.dead_attention_rows, ".2%")),
    ("Euler residual", lambda f: _number(f.euler_residual, ".1e")),
    ("tokens/s", lambda f: _number(f.tokens_per_second, ",.0f")),
    ("MFU", lambda f: _number(f.mfu, ".1%")),
)


def _steps(run: Run) -> str:
    """Return the steps of the run, and the planned number if it has not reached the end."""
    planned = run.setting("train.num_steps")
    if isinstance(planned, int) and planned > run.last_step:
        return f"{run.last_step:,} of {planned:,}"
    return f"{run.last_step:,}"


def _differences(runs: Sequence[Run], names: Sequence[str]) -> str:
    """Return a table of the config keys whose values differ between runs."""
    if len(runs) == 1:
        return ""
    flat = [_flatten(run.config) for run in runs]
    keys = sorted(set().union(*flat))
    differing = [key for key in keys if len({settings.get(key) for settings in flat}) > 1]
    if not differing:
        return "## Settings that differ\nNone; the runs have the same configuration.\n"
    body = [[f"`{key}`", *(settings.get(key, MISSING) for settings in flat)] for key in differing]
    header = ["key", *names]
    return "## Settings that differ\n" + _markdown([header, [":--"] * len(header), *body])


def _flatten(config: dict, prefix: str = "") -> dict[str, str]:
    """Map dotted keys to values as text."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = "none" if value is None else _text(value)
    return flat


def _text(value: object) -> str:
    if value is None:
        return MISSING
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _notes(runs: Sequence[Run], names: Sequence[str]) -> str:
    lines = []
    for run, name in zip(runs, names, strict=True):
        lines += [f"- {name}: {note}" for note in run.notes]
        if not run.has_predictions:
            lines.append(
                f"- {name}: no predicted values, because the theory does not apply to "
                f"optim.name={_text(run.setting('optim.name'))}"
            )
    return "\n".join(["## Notes", *lines, ""]) if lines else ""


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    """Format rows of cells as a table, escaping what would end a cell early."""
    lines = (
        " | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in row) for row in rows
    )
    return "".join(f"| {line} |\n" for line in lines)
