"""Tagging of words: keys, model, loss and metrics. Notation: model/config.py; C tags, W words.

The first token of a word has its tag (Devlin et al. 2019, §5.3); the others have `NO_TAG`.
"""

import dataclasses
from collections.abc import Sequence

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
from sibert_jax.tasks.task import Task
from sibert_jax.tasks.token_classification.entities import entity_scores

NO_TAG = -1


@dataclasses.dataclass(frozen=True)
class TokenClassificationConfig(FinetuningConfig):
    """Keys under `task` of a token-classification config."""

    name: str = key("token_classification", "kind of task, fixed by the configuration")
    labels: tuple[str, ...] = key((), "tags, in order; (): those found in data.path")
    strict: bool = key(
        False, "stop at a malformed sentence instead of skipping it", may_change=True
    )

    def __post_init__(self):
        check("task", self)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics, main one first: F1 of entities if the tags have prefixes."""
        is_entity = all(tag == "O" or tag[1:2] == "-" for tag in self.labels)
        return ("f1", "precision", "recall", "accuracy") if is_entity else ("accuracy",)


class TokenHead(nn.Module):
    """Dropout and a linear layer on every token; if invariant, s·cos(h, e_c) of its features h."""

    cfg: ModelConfig
    num_outputs: int
    logit_scale: float | None  # s; None: the linear layer

    @nn.compact
    def __call__(self, x_BLD: jax.Array, batch, token_table_VD: jax.Array, *, deterministic: bool):
        """Returns outputs_BLC, float32."""
        del batch, token_table_VD
        c = self.cfg
        if self.logit_scale is not None:
            x_BLD = UnitFeatures(c, name="transform")(x_BLD)
        x_BLD = nn.Dropout(c.dropout)(x_BLD.astype(jnp.float32), deterministic=deterministic)
        if self.logit_scale is not None:
            return CosineOutputs(self.num_outputs, self.logit_scale, c.init_std, name="tagger")(
                x_BLD
            )
        init = nn.initializers.truncated_normal(c.init_std)
        return nn.Dense(self.num_outputs, kernel_init=init, name="tagger")(x_BLD)


class TokenClassification(Task):
    """Predicts a tag for each word of a sentence.

    Args:
      model: the encoder's config.
      task: the task's config.
      seq_lens: the lengths that batches may have, ascending.
      sentences: (N,), the sentence of each row of the evaluation set; None: one row per sentence.
    """

    loss_names = ("label_loss",)

    def __init__(
        self,
        model: ModelConfig,
        task: TokenClassificationConfig,
        seq_lens: tuple[int, ...],
        sentences: np.ndarray | None = None,
    ):
        if not task.labels:
            raise ConfigError("task.labels is empty; resolve() finds them.")
        self.labels, self._task, self._sentences = task.labels, task, sentences
        scale = task.logit_scale if task.head == "invariant" else None
        super().__init__(
            model,
            TokenHead(model, len(self.labels), scale),
            seq_lens=seq_lens,
            loss_scale=task.loss_scale,
            head_is_invariant="head" in invariant_parts(task),
        )

    def own_shapes(self, num_rows: int, seq_len: int) -> dict:
        return {
            "tags": ((num_rows, seq_len), jnp.int32),
            "example_index": ((num_rows,), jnp.int32),
        }

    def sums(self, params, batch, dropout_key: jax.Array | None = None) -> dict[str, jax.Array]:
        """Returns the summed cross-entropy of the words, and dead rows: float32 scalars."""
        outputs_BLC, dead_N = self.apply(params, batch, dropout_key)
        return {
            "label_loss": jnp.sum(_losses(outputs_BLC, batch)),
            "dead_attention_rows": jnp.sum(dead_N).astype(jnp.float32),
        }

    def denominators(self, batch) -> dict[str, jax.Array]:
        words = jnp.sum(_weights(batch))
        return {"label_loss": words, "dead_attention_rows": self.attention_rows(batch)}

    def eval_batch(self, params, batch) -> dict[str, jax.Array]:
        """Returns the best tag of each token, its probability and the losses."""
        outputs_BLC, _ = self.apply(params, batch)
        return {
            "predicted": jnp.argmax(outputs_BLC, axis=-1),
            "probability": jnp.max(nn.softmax(outputs_BLC), axis=-1),
            "losses": _losses(outputs_BLC, batch),
        } | {name: batch[name] for name in ("tags", "example_weights", "example_index")}

    def eval_metrics(self, results: list) -> dict[str, float]:
        """Returns the loss per word and the metrics."""
        words = words_of(results, self._sentences)
        loss = {"loss": float(np.mean(np.concatenate(words["losses"]), dtype=np.float64))}
        return loss | scores(words["predicted"], words["tags"], self._task)[0]

    def flops_per_token(self, seq_len: int) -> float:
        """Forward and backward FLOPs per token, without recomputation."""
        outputs = 6.0 * self.cfg.width * len(self.labels)
        return encoder_flops_per_token(self.cfg, seq_len) + outputs


def _weights(batch) -> jax.Array:
    """Returns weights (B, L), 1 on the first token of each word of a real example."""
    return jnp.where(batch["tags"] == NO_TAG, 0.0, batch["example_weights"][:, None])


def _losses(outputs_BLC: jax.Array, batch) -> jax.Array:
    return _weights(batch) * cross_entropy(outputs_BLC, jnp.maximum(batch["tags"], 0))


def words_of(results: list, sentences: np.ndarray | None) -> dict[str, list[np.ndarray]]:
    """Returns the values of the words of each sentence in order, for the rows in `results`.

    Args:
      results: results of `eval_batch`.
      sentences: (N,), the sentence of each row, ascending; None: one row per sentence.
    """
    rows = {}
    for result in results:
        for b in np.flatnonzero(result["example_weights"] > 0):
            rows[int(result["example_index"][b])] = (result, b)
    parts: dict[int, list] = {}
    for index in sorted(rows):
        parts.setdefault(index if sentences is None else int(sentences[index]), []).append(
            rows[index]
        )
    return {
        name: [
            np.concatenate([r[name][b][r["tags"][b] != NO_TAG] for r, b in part])
            for part in parts.values()
        ]
        for name in ("predicted", "probability", "losses", "tags")
    }


def scores(
    predicted: Sequence[np.ndarray], gold: Sequence[np.ndarray], task: TokenClassificationConfig
) -> tuple[dict[str, float], dict]:
    """Returns the metrics, and those per entity type ({} if the tags have no prefixes)."""
    right = np.concatenate(predicted) == np.concatenate(gold)
    found = {"accuracy": float(np.mean(right))}
    if "f1" not in task.metrics:
        return found, {}
    names = [[[task.labels[i] for i in row] for row in rows] for rows in (predicted, gold)]
    overall, by_type = entity_scores(*names)
    return {name: (overall | found)[name] for name in task.metrics}, by_type
