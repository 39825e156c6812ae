"""Config keys, logits and token-frequency priors shared by the tasks that predict tokens."""

import dataclasses
import math
import pathlib
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from sibert_jax.files import atomically
from sibert_jax.keys import key
from sibert_jax.model import ModelConfig
from sibert_jax.tasks.invariant_head import UnitFeatures, unit_rows, unit_table
from sibert_jax.tasks.losses import table_logits

TOKEN_COUNTS = "token_counts.npy"  # in a workdir: (V,) int64, counts in the training text


@dataclasses.dataclass(frozen=True)
class TokenOutputConfig:
    """Keys under `task` of every task that predicts tokens."""

    name: str = key("", "kind of task, fixed by the configuration")
    head: str = key("invariant", "type of output head")
    logit_scale: float = key(
        8.0, "initial scale of the invariant head's cosine logits; learned, up to a factor of 4 "
        "from it", above=0, below=math.inf,
    )  # fmt: skip
    table_norm: str = key(
        "rows", "how the invariant head normalizes the token table; rows: each row by its own "
        "norm; table: all rows by the root mean square of their norms", choices=("rows", "table"),
    )  # fmt: skip
    loss_scale: float = key(
        1.0, "constant factor on the loss before differentiation", above=0, below=math.inf
    )


class OutputProjection(NamedTuple):
    """The factors of the token logits, h · tableᵀ + bias."""

    h_BPD: jax.Array  # compute dtype
    table_VD: jax.Array  # float32
    bias_V: jax.Array  # float32

    def logits(self) -> jax.Array:
        """Returns all logits, (B, P, V), float32."""
        h_TD = self.h_BPD.reshape(-1, self.h_BPD.shape[-1])
        logits_TV = table_logits(h_TD, self.table_VD, self.bias_V)
        return logits_TV.reshape(*self.h_BPD.shape[:2], -1)


def invariant_projection(
    cfg: ModelConfig,
    x_BPD: jax.Array,
    token_table_VD: jax.Array,
    *,
    scale: jax.Array,
    table_norm: str,
    log_frequency: tuple[float, ...],
) -> OutputProjection:
    """logits = s·cos(h, e_v) + log frequency of v, with h = γ ⊙ N(x W) + β; call inside a head.

    Degrees: W (1) -> N (0) -> γ, β (1) -> divided by its norm (0); rows divided by their norms (0).

    Args:
      cfg: the model's config; the parameters of h are in the submodule "transform" of the head.
      x_BPD: features of the positions to predict.
      token_table_VD: the encoder's token table, e_v before normalization.
      scale: s, from `learned_scale`.
      table_norm: "rows": each row is divided by its norm; "table": all by the rms of the norms.
      log_frequency: V log frequencies, the output bias.
    """
    h_TD = UnitFeatures(cfg, name="transform")(x_BPD.reshape(-1, cfg.width))
    to_unit = unit_rows if table_norm == "rows" else unit_table
    h_BPD = (scale * h_TD).astype(cfg.compute_dtype).reshape(x_BPD.shape)
    prior_V = jnp.asarray(log_frequency, jnp.float32)
    return OutputProjection(h_BPD, to_unit(token_table_VD), prior_V)


def log_frequencies(counts_V: np.ndarray) -> tuple[float, ...]:
    """Returns log((n + 1) / Σ(n + 1)) for each token count n."""
    return tuple(np.log((counts_V + 1.0) / (counts_V + 1.0).sum()).tolist())


def save_counts(directory: pathlib.Path, counts_V: np.ndarray) -> None:
    """Writes the token counts that the outputs of an invariant head depend on."""
    with atomically(directory / TOKEN_COUNTS) as temporary, temporary.open("wb") as file:
        np.save(file, counts_V)


Restored = TypeVar("Restored")


def with_counts(make: Callable[[np.ndarray | None], Restored], workdir: pathlib.Path) -> Restored:
    """Restores a task with `make` and a run's token counts; sets `problem` if they are missing."""
    path = workdir / TOKEN_COUNTS
    if path.is_file():
        return make(np.load(path))
    restored = make(None)
    restored.problem = (
        f"{path} is missing; it holds the token frequencies that the head adds to its outputs; "
        "give the command of the run again, which writes the file and does not train further."
    )
    return restored
