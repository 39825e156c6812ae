"""Question answering as the training loop sees it: encoder, span head, loss, metrics."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sibert_jax.model import Encoder, ModelConfig, encoder_flops_per_token
from sibert_jax.tasks.apply import apply_model
from sibert_jax.tasks.losses import cross_entropy
from sibert_jax.tasks.question_answering.answers import Answerer
from sibert_jax.tasks.question_answering.spans import best_spans


@dataclasses.dataclass(frozen=True)
class QuestionAnsweringConfig:
    """Keys under `task` of a question-answering config."""

    name: str  # "question_answering"
    unanswerable: bool  # SQuAD 2.0: a question may have no answer
    max_query_len: int  # pieces of a question; a longer one is cut off
    doc_stride: int  # pieces from the start of one window over a context to the next
    max_answer_len: int  # pieces of the longest answer that is predicted
    n_best: int  # candidates kept of each window and of each question
    null_threshold: float  # if unanswerable: no answer where the odds of none exceed it
    strict: bool  # stop at an answer that is not in its context, instead of leaving it out
    loss_scale: float  # > 0, multiplies the loss that is differentiated, not the one reported

    def __post_init__(self):
        for name in ("max_query_len", "doc_stride", "max_answer_len", "n_best"):
            if getattr(self, name) < 1:
                raise ValueError(f"task.{name}={getattr(self, name)} must be at least 1.")
        if not math.isfinite(self.null_threshold):
            raise ValueError(f"task.null_threshold={self.null_threshold} must be finite.")
        if self.loss_scale <= 0:
            raise ValueError(f"task.loss_scale={self.loss_scale} must be positive.")


class SpanHead(nn.Module):
    """Two logits a piece: the answer starts here, the answer ends here (Devlin et al. 2019)."""

    cfg: ModelConfig

    @nn.compact
    def __call__(self, x_BLD: jax.Array) -> tuple[jax.Array, jax.Array]:
        c = self.cfg
        init = nn.initializers.truncated_normal(c.init_std)
        logits_BL2 = nn.Dense(2, dtype=c.compute_dtype, kernel_init=init, name="span")(x_BLD)
        logits_BL2 = logits_BL2.astype(jnp.float32)
        return logits_BL2[..., 0], logits_BL2[..., 1]


class QuestionAnsweringModel(nn.Module):
    """Encoder and head; parameters under "encoder" and "head"."""

    cfg: ModelConfig

    def setup(self):
        self.encoder = Encoder(self.cfg)
        self.head = SpanHead(self.cfg)

    def __call__(self, batch: dict[str, jax.Array], *, deterministic: bool = True):
        """Returns start_BL, end_BL, dead_N."""
        x_BLD, dead_N = self.encoder(
            batch["tokens"], batch["segments"], batch["valid"], deterministic=deterministic
        )
        return *self.head(x_BLD), dead_N


class QuestionAnswering:
    """The task as the training loop sees it: see `tasks.task.Task`.

    Args:
      model: sizes of the encoder.
      task: windows and answers.
      seq_lens: lengths that a batch may have, ascending.
      answerer: of the held-out windows; None: only shapes are wanted.
      is_labelled_W: in which of the held-out windows the place of the answer is known; None: in
        none of them.
    """

    loss_names = ("span_loss",)
    labels = ()

    def __init__(
        self,
        model: ModelConfig,
        task: QuestionAnsweringConfig,
        seq_lens: tuple[int, ...],
        answerer: Answerer | None = None,
        is_labelled_W: np.ndarray | None = None,
    ):
        self.cfg, self.task = model, task
        self.seq_lens, self.loss_scale = seq_lens, task.loss_scale
        self.model = QuestionAnsweringModel(model)
        self._answerer, self._is_labelled_W = answerer, is_labelled_W

    def abstract_batch(self, num_rows: int, seq_len: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of what `WindowRows` makes."""
        by_piece = {"tokens": "int32", "segments": "int32", "valid": "bool"}
        by_piece |= {"may_start": "bool", "may_end": "bool"}
        by_row = {"answer_first": "int32", "answer_last": "int32", "example_index": "int32"}
        by_row |= {"example_weights": "float32"}
        shapes = {name: ((num_rows, seq_len), dtype) for name, dtype in by_piece.items()}
        shapes |= {name: ((num_rows,), dtype) for name, dtype in by_row.items()}
        return {
            name: jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))
            for name, (shape, dtype) in shapes.items()
        }

    def init(self, key: jax.Array, batch: dict[str, jax.Array]):
        """Fresh float32 parameters {"encoder": ..., "head": ...}; `batch` gives the shapes."""
        return self.model.init(key, batch)["params"]

    def invariance_mask(self, params):
        """True on the encoder's leaves: its output has degree 0, the head is not invariant."""
        return {
            name: jax.tree.map(lambda _, inside=(name == "encoder"): inside, part)
            for name, part in params.items()
        }

    def apply(self, params, batch, dropout_key: jax.Array | None = None):
        """Logits as `QuestionAnsweringModel`; no dropout without a key."""
        return apply_model(self.model, self.cfg, params, batch, dropout_key)

    def sums(self, params, batch, dropout_key: jax.Array | None = None) -> dict[str, jax.Array]:
        """The mean of the cross entropies of start and end, summed over the windows."""
        start_BL, end_BL, dead_N = self.apply(params, batch, dropout_key)
        loss_B = self._losses(start_BL, end_BL, batch)
        return {
            "span_loss": jnp.sum(batch["example_weights"] * loss_B),
            "dead_attention_rows": jnp.sum(dead_N).astype(jnp.float32),
        }

    def _losses(self, start_BL: jax.Array, end_BL: jax.Array, batch) -> jax.Array:
        """An answer may start and end in the context; where there is none, at the [CLS]."""
        is_first_BL = jnp.arange(start_BL.shape[1])[None, :] == 0
        candidate_BL = batch["may_end"] | is_first_BL
        nowhere = jnp.finfo(jnp.float32).min
        start_loss_B, end_loss_B = (
            cross_entropy(jnp.where(candidate_BL, logits_BL, nowhere), batch[name])
            for logits_BL, name in ((start_BL, "answer_first"), (end_BL, "answer_last"))
        )
        return 0.5 * (start_loss_B + end_loss_B)

    def totals(self, batch) -> dict[str, jax.Array]:
        """What each of `sums` is divided by: counts of this batch, float32, may be 0."""
        rows = jnp.sum(batch["valid"], dtype=jnp.float32) * self.cfg.num_heads * self.cfg.depth
        return {"span_loss": jnp.sum(batch["example_weights"]), "dead_attention_rows": rows}

    def eval_batch(self, params, batch) -> dict[str, jax.Array]:
        """Best spans, score of no answer and loss of each window; arrays of (B, ...)."""
        start_BL, end_BL, _ = self.apply(params, batch)
        spans = best_spans(
            start_BL,
            end_BL,
            batch["may_start"],
            batch["may_end"],
            max_len=self.task.max_answer_len,
            count=self.task.n_best,
        )
        return {
            "window": batch["example_index"],
            "counts": batch["example_weights"] > 0,
            "loss": self._losses(start_BL, end_BL, batch),
            "null_score": start_BL[:, 0] + end_BL[:, 0],
            "start_logit": jnp.take_along_axis(start_BL, spans.first_BC, axis=1),
            "end_logit": jnp.take_along_axis(end_BL, spans.last_BC, axis=1),
            **spans._asdict(),
        }

    def eval_metrics(self, results: list) -> dict[str, float]:
        """EM and F1 of the questions whose windows are all among the results, and the loss."""
        scores = self._answerer.metrics(self._answerer.answers(results))
        if self._is_labelled_W is None:
            return scores
        loss_R, window_R, counts_R = (
            np.concatenate([result[name] for result in results])
            for name in ("loss", "window", "counts")
        )
        counts_R &= self._is_labelled_W[window_R]
        if not counts_R.any():
            return scores
        return {"loss": float(np.mean(loss_R[counts_R], dtype=np.float64))} | scores

    def flops_per_token(self, seq_len: int) -> float:
        """Forward and backward, model only: recomputation does not count."""
        return encoder_flops_per_token(self.cfg, seq_len) + 6.0 * self.cfg.width * 2
