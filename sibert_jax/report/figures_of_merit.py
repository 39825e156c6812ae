"""The numbers in a run's row of the table; None where the run did not log what is needed."""

import dataclasses
from typing import NamedTuple

import numpy as np

from sibert_jax.report.downsample import steps_per_row
from sibert_jax.report.metrics_file import Series
from sibert_jax.report.run_folder import EVAL_ACCURACY, EVAL_LOSS, PREDICTED_ROTATION, Run

FINAL_SHARE = 0.05  # averaged at the end of a run, as a single row of training loss is noisy


class Pair(NamedTuple):
    """A measurement and its prediction."""

    measured: float | None
    predicted: float | None


@dataclasses.dataclass(frozen=True)
class FiguresOfMerit:
    """Losses in nats, rates as fractions of one, rotation in radians per step."""

    steps: int
    tokens: int | None
    train_loss: float | None
    train_mlm_loss: float | None
    train_nsp_loss: float | None
    eval_loss: float | None
    best_eval_loss: float | None
    best_eval_step: int | None
    accuracy: float | None
    nsp_accuracy: float | None
    clip_rate: float | None
    weight_norm: Pair
    rotation: Pair
    dead_attention_rows: float | None
    euler_residual: float | None
    tokens_per_second: float | None
    mfu: float | None


def figures_of_merit(run: Run) -> FiguresOfMerit:
    """Compute the numbers of a run's row.

    Args:
      run: a run from `read_run`.

    Returns:
      Training losses and dead rows as means over the last 5 % of the steps; evaluation metrics and
      ‖x‖ of the last row; the clip rate as the mean over all steps; rotation, tokens per second and
      MFU as medians over the rows; the largest Euler residual.
    """
    best = _best(run.metric(*EVAL_LOSS))
    predicted_rotation = run.metric(PREDICTED_ROTATION)
    return FiguresOfMerit(
        steps=run.last_step,
        tokens=_tokens(run),
        train_loss=_at_the_end(run.metric("train/loss")),
        train_mlm_loss=_at_the_end(run.metric("train/mlm_loss")),
        train_nsp_loss=_at_the_end(run.metric("train/nsp_loss")),
        eval_loss=_last(run.metric(*EVAL_LOSS)),
        best_eval_loss=best[1] if best else None,
        best_eval_step=best[0] if best else None,
        accuracy=_last(run.metric(*EVAL_ACCURACY)),
        nsp_accuracy=_last(run.metric("eval/nsp_accuracy")),
        clip_rate=_step_mean(run.metric("optim/clipped")),
        weight_norm=Pair(
            _last(run.metric("optim/param_norm")), _last(run.metric("optim/equilibrium_norm"))
        ),
        rotation=Pair(_median(run.metric("optim/rotation")), _median(predicted_rotation)),
        dead_attention_rows=_at_the_end(run.metric("model/dead_attention_rows")),
        euler_residual=_largest(run.metric("optim/euler_residual")),
        tokens_per_second=_median(run.metric("perf/tokens_per_second")),
        mfu=_median(run.metric("perf/mfu")),
    )


def _tokens(run: Run) -> int | None:
    """Return the tokens seen: steps · sequences per step · tokens per sequence, padding included.

    If batches have several lengths, `data.seq_len` is only the longest: tokens per second over
    sequences per second is the mean length since the previous row.
    """
    batch, length = run.setting("train.global_batch_size"), run.setting("data.seq_len")
    if not isinstance(batch, int) or not isinstance(length, int):
        return None
    if run.setting("data.num_seq_lens") is None:
        return run.last_step * batch * length
    tokens, sequences = (run.metric(f"perf/{name}_per_second") for name in ("tokens", "examples"))
    if not tokens.steps.size or not np.array_equal(tokens.steps, sequences.steps):
        return None
    mean_lengths = tokens.values / sequences.values
    return round(batch * float(mean_lengths @ steps_per_row(tokens.steps)))


def _at_the_end(series: Series) -> float | None:
    """Return the mean over the rows in the last 5 % of the steps; NaN if any is NaN."""
    if not series.steps.size:
        return None
    rows = series.steps > (1 - FINAL_SHARE) * series.steps[-1]
    rows[-1] = True  # a run of one row at step 0
    return float(np.mean(series.values[rows]))


def _last(series: Series) -> float | None:
    return float(series.values[-1]) if series.steps.size else None


def _best(series: Series) -> tuple[int, float] | None:
    finite = np.isfinite(series.values)
    if not finite.any():
        return None
    best = np.argmin(np.where(finite, series.values, np.inf))
    return int(series.steps[best]), float(series.values[best])


def _step_mean(series: Series) -> float | None:
    """Return the mean over the steps: rows are weighted by their number of steps."""
    finite = np.isfinite(series.values)
    if not finite.any():
        return None
    return float(np.average(series.values[finite], weights=steps_per_row(series.steps)[finite]))


def _median(series: Series) -> float | None:
    finite = series.values[np.isfinite(series.values)]
    return float(np.median(finite)) if finite.size else None


def _largest(series: Series) -> float | None:
    finite = series.values[np.isfinite(series.values)]
    return float(np.max(finite)) if finite.size else None
