"""Extractive question answering: span heads, loss and metrics."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sibert_jax.errors import ConfigError
from sibert_jax.keys import check, key
from sibert_jax.model import ModelConfig, encoder_flops_per_token
from sibert_jax.tasks.finetuning import FinetuningConfig
from sibert_jax.tasks.invariant_head import CosineOutputs, UnitFeatures, invariant_parts
from sibert_jax.tasks.losses import cross_entropy
from sibert_jax.tasks.question_answering.predictions import Answerer, best_spans
from sibert_jax.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class QuestionAnsweringConfig(FinetuningConfig):
    """Keys under `task` of a question-answering config."""

    name: str = key("question_answering", "kind of task, fixed by the configuration")
    unanswerable: bool = key(False, "whether questions may have no answer, as in SQuAD 2.0")
    max_query_len: int = key(
        64, "maximum tokens of a question; longer questions are truncated", low=1
    )
    doc_stride: int = key(
        128, "tokens between the starts of consecutive windows of a long context", low=1
    )
    max_answer_len: int = key(30, "maximum tokens of a predicted answer", low=1, may_change=True)
    n_best: int = key(
        20, "number of candidate answers kept per window and per question", low=1, may_change=True
    )
    null_threshold: float = key(
        0.0, "predict no answer if its score exceeds that of the best answer by more than this, "
        "in logits", above=-math.inf, below=math.inf, may_change=True,
    )  # fmt: skip
    strict: bool = key(
        False, "stop at an answer that is not in its context instead of skipping it",
        may_change=True,
    )  # fmt: skip

    def __post_init__(self):
        check("task", self)


class SpanHead(nn.Module):
    """Two logits per token: the answer starts here, the answer ends here (Devlin et al. 2019)."""

    cfg: ModelConfig

    @nn.compact
    def __call__(self, x_BLD: jax.Array, batch, token_table_VD: jax.Array, *, deterministic: bool):
        """Returns start_BL and end_BL, float32."""
        del batch, token_table_VD, deterministic
        c = self.cfg
        init = nn.initializers.truncated_normal(c.init_std)
        logits_BL2 = nn.Dense(2, dtype=c.compute_dtype, kernel_init=init, name="span")(x_BLD)
        logits_BL2 = logits_BL2.astype(jnp.float32)
        return logits_BL2[..., 0], logits_BL2[..., 1]


class InvariantSpanHead(nn.Module):
    """A span head of degree 0, s·cos(h, e), so that plain SGD can fine-tune the whole model."""

    cfg: ModelConfig
    logit_scale: float  # s

    @nn.compact
    def __call__(self, x_BLD: jax.Array, batch, token_table_VD: jax.Array, *, deterministic: bool):
        """Returns start_BL and end_BL, float32."""
        del batch, token_table_VD, deterministic
        h_BLD = UnitFeatures(self.cfg, name="transform")(x_BLD)
        outputs = CosineOutputs(2, self.logit_scale, self.cfg.init_std, name="span")
        logits_BL2 = outputs(h_BLD)
        return logits_BL2[..., 0], logits_BL2[..., 1]


class QuestionAnswering(Task):
    """Question answering: the answer is a span of the context.

    Args:
      model: the encoder's config.
      task: the task's config.
      seq_lens: the lengths that batches may have, ascending.
      answerer: combines the held-out windows; None if only shapes are needed.
      is_labeled_W: bool, held-out windows with a known answer position; None: none of them.
    """

    loss_names = ("span_loss",)

    def __init__(
        self,
        model: ModelConfig,
        task: QuestionAnsweringConfig,
        seq_lens: tuple[int, ...],
        answerer: Answerer | None = None,
        is_labeled_W: np.ndarray | None = None,
    ):
        is_invariant = "head" in invariant_parts(task)
        super().__init__(
            model,
            InvariantSpanHead(model, task.logit_scale) if is_invariant else SpanHead(model),
            seq_lens=seq_lens,
            loss_scale=task.loss_scale,
            head_is_invariant=is_invariant,
        )
        self.task = task
        self._answerer, self._is_labeled_W = answerer, is_labeled_W

    def own_shapes(self, num_rows: int, seq_len: int) -> dict:
        shapes = dict.fromkeys(("may_start", "may_end"), ((num_rows, seq_len), jnp.bool_))
        for name in ("answer_first", "answer_last", "example_index"):
            shapes[name] = ((num_rows,), jnp.int32)
        return shapes

    def sums(self, params, batch, dropout_key: jax.Array | None = None) -> dict[str, jax.Array]:
        """Returns the mean cross-entropy of start and end summed over windows, and dead rows."""
        (start_BL, end_BL), dead_N = self.apply(params, batch, dropout_key)
        loss_B = self._losses(start_BL, end_BL, batch)
        return {
            "span_loss": jnp.sum(batch["example_weights"] * loss_B),
            "dead_attention_rows": jnp.sum(dead_N).astype(jnp.float32),
        }

    def _losses(self, start_BL: jax.Array, end_BL: jax.Array, batch) -> jax.Array:
        """Returns the loss of each window; candidates are the context, and [CLS] for no answer."""
        is_first_BL = jnp.arange(start_BL.shape[1])[None, :] == 0
        candidate_BL = batch["may_end"] | is_first_BL
        nowhere = jnp.finfo(jnp.float32).min
        start_loss_B, end_loss_B = (
            cross_entropy(jnp.where(candidate_BL, logits_BL, nowhere), batch[name])
            for logits_BL, name in ((start_BL, "answer_first"), (end_BL, "answer_last"))
        )
        return 0.5 * (start_loss_B + end_loss_B)

    def denominators(self, batch) -> dict[str, jax.Array]:
        windows = jnp.sum(batch["example_weights"])
        return {"span_loss": windows, "dead_attention_rows": self.attention_rows(batch)}

    def eval_batch(self, params, batch) -> dict[str, jax.Array]:
        """Returns best spans, score of no answer and loss of each window; arrays (B, ...)."""
        (start_BL, end_BL), _ = self.apply(params, batch)
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
        """Returns the loss, and EM and F1 of questions whose windows are all among the results."""
        scores = self._answerer.metrics(self._answerer.answers(results))
        if self._is_labeled_W is None:
            return scores
        loss_R, window_R, counts_R = (
            np.concatenate([result[name] for result in results])
            for name in ("loss", "window", "counts")
        )
        counts_R &= self._is_labeled_W[window_R]
        if not counts_R.any():
            return scores
        return {"loss": float(np.mean(loss_R[counts_R], dtype=np.float64))} | scores

    def flops_per_token(self, seq_len: int) -> float:
        """Forward and backward FLOPs per token, without recomputation."""
        transform = self.cfg.width**2 if self.task.head == "invariant" else 0
        head = 6.0 * (transform + 2 * self.cfg.width)
        return encoder_flops_per_token(self.cfg, seq_len) + head


def check_keys(model: ModelConfig, task: QuestionAnsweringConfig, data) -> None:
    """Raises ConfigError for windows without room for a context."""
    del model
    if data.seq_len - task.max_query_len - 3 < 1:
        raise ConfigError(
            f"data.seq_len={data.seq_len} leaves no room for a context beside a question of "
            f"task.max_query_len={task.max_query_len} and three special tokens; raise the former "
            "or lower the latter."
        )
