"""Sentence classification and regression: model, loss and metrics. Notation: model/config.py.

C is the number of classes; 1 for a score.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sibert_jax.errors import ConfigError
from sibert_jax.model import ModelConfig, encoder_flops_per_token
from sibert_jax.tasks.classification.config import OWN, ClassificationConfig
from sibert_jax.tasks.classification.metrics import METRICS
from sibert_jax.tasks.invariant_head import CosineOutputs, UnitFeatures, invariant_parts
from sibert_jax.tasks.losses import cross_entropy
from sibert_jax.tasks.task import Task

UNIT = 5.0  # scores are learned on a scale from 0 to UNIT, that of STS-B


def pool(x_BLD: jax.Array, batch, pooling: str) -> jax.Array:
    """Returns the input of a head: (B, D), or (B, 4·D) for "pair".

    Args:
      x_BLD: the encoder's features.
      batch: has "segments", 1 on the second text, and "attention_mask".
      pooling: "first": the first token; "mean": over all tokens; "pair": the means a and b of each
        text, |a − b| and a·b, as in Reimers & Gurevych 2019, §3, and Conneau et al. 2017, §3.1. The
        first token's last-layer features miss the last layer's exchange between the two texts.
    """
    if pooling == "first":
        return x_BLD[:, 0]
    valid_BL, segments_BL = batch["attention_mask"], batch["segments"]
    if pooling == "mean":
        return _mean(x_BLD, valid_BL)
    a_BD, b_BD = (_mean(x_BLD, valid_BL & (segments_BL == i)) for i in (0, 1))
    return jnp.concatenate([a_BD, b_BD, jnp.abs(a_BD - b_BD), a_BD * b_BD], axis=-1)


def _mean(x_BLD: jax.Array, among_BL: jax.Array) -> jax.Array:
    """Returns the mean over the selected tokens; 0 if there are none."""
    among_BL = among_BL.astype(jnp.float32)
    total_BD = jnp.einsum("BLD,BL->BD", x_BLD.astype(jnp.float32), among_BL)
    return (total_BD / jnp.maximum(among_BL.sum(axis=1), 1.0)[:, None]).astype(x_BLD.dtype)


class ClassificationHead(nn.Module):
    """BERT's head: pooling, dense and tanh (the pooler), dropout, one dense layer.

    Not scale invariant; trained by LAMB in the paper (Devlin et al. 2019, §4.1; Li et al. 2022,
    §5).
    """

    cfg: ModelConfig
    num_outputs: int
    first_output: float = 0.0  # initial output bias
    pooling: str = "first"

    @nn.compact
    def __call__(self, x_BLD: jax.Array, batch, token_table_VD: jax.Array, *, deterministic: bool):
        """Returns outputs_BC, float32."""
        del token_table_VD
        c = self.cfg
        init = nn.initializers.truncated_normal(c.init_std)
        dense = nn.Dense(c.width, dtype=c.compute_dtype, kernel_init=init, name="pooler")
        pooled_BD = jnp.tanh(dense(pool(x_BLD, batch, self.pooling)).astype(jnp.float32))
        pooled_BD = nn.Dropout(c.dropout)(pooled_BD, deterministic=deterministic)
        bias_init = nn.initializers.constant(self.first_output)
        outputs = nn.Dense(
            self.num_outputs, True, kernel_init=init, bias_init=bias_init, name="classifier"
        )
        return outputs(pooled_BD)


class InvariantClassificationHead(nn.Module):
    """A head of degree 0, so that plain SGD can fine-tune the whole model: ours, not the paper's.

    Classes: s·cos(h, e_c) with h the transformed pooled features. Scores: in [0, UNIT],
    proportional to 1 + cos(h, e).
    """

    cfg: ModelConfig
    num_outputs: int
    logit_scale: float  # s
    pooling: str = "first"

    @nn.compact
    def __call__(self, x_BLD: jax.Array, batch, token_table_VD: jax.Array, *, deterministic: bool):
        """Returns outputs_BC, float32."""
        del token_table_VD
        c = self.cfg
        pooled_BD = UnitFeatures(c, name="pooler")(pool(x_BLD, batch, self.pooling))
        pooled_BD = nn.Dropout(c.dropout)(pooled_BD, deterministic=deterministic)
        is_score = self.num_outputs == 1
        scale = UNIT / 2 if is_score else self.logit_scale
        outputs = CosineOutputs(self.num_outputs, scale, c.init_std, name="classifier")
        return outputs(pooled_BD) + (UNIT / 2 if is_score else 0.0)


class Classification(Task):
    """Classification or regression of sentences and sentence pairs.

    Args:
      model: the encoder's config.
      task: the task's config.
      seq_lens: the lengths that batches may have, ascending.
      class_weights: (C,), weights in the training loss; None: all 1.

    Raises:
      ConfigError: the classes or the score range are unspecified.
    """

    loss_names = ("label_loss",)

    def __init__(
        self,
        model: ModelConfig,
        task: ClassificationConfig,
        seq_lens: tuple[int, ...],
        class_weights: np.ndarray | None = None,
    ):
        if not (task.classes or task.scores):
            raise ConfigError("task.labels and task.score_range are empty; resolve() finds them.")
        self.labels = task.classes or ("score",)
        self._task, self._class_weights = task, class_weights
        if task.is_regression:
            low, high = task.scores
            self.score_map = (low, (high - low) / UNIT)
        if task.head == "invariant":
            head = InvariantClassificationHead(
                model, len(self.labels), task.logit_scale, task.pooling
            )
        else:
            in_middle = UNIT / 2 if task.dataset == OWN and task.is_regression else 0.0
            head = ClassificationHead(model, len(self.labels), in_middle, task.pooling)
        super().__init__(
            model,
            head,
            seq_lens=seq_lens,
            loss_scale=task.loss_scale,
            head_is_invariant="head" in invariant_parts(task),
        )

    def own_shapes(self, num_rows: int, seq_len: int) -> dict:
        label_dtype = jnp.float32 if self._task.is_regression else jnp.int32
        return {"labels": ((num_rows,), label_dtype), "example_index": ((num_rows,), jnp.int32)}

    def sums(self, params, batch, dropout_key: jax.Array | None = None) -> dict[str, jax.Array]:
        """Returns summed cross-entropy or squared error, and dead rows: float32 scalars."""
        outputs_BC, dead_N = self.apply(params, batch, dropout_key)
        losses_B = self._losses(outputs_BC, batch, self._task.label_smoothing)
        return {
            "label_loss": jnp.sum(self._weights(batch) * losses_B),
            "dead_attention_rows": jnp.sum(dead_N).astype(jnp.float32),
        }

    def denominators(self, batch) -> dict[str, jax.Array]:
        examples = jnp.sum(self._weights(batch))
        return {"label_loss": examples, "dead_attention_rows": self.attention_rows(batch)}

    def eval_batch(self, params, batch) -> dict[str, jax.Array]:
        """Returns logits or scores, losses, labels, weights and index of each example."""
        outputs_BC, _ = self.apply(params, batch)
        losses_B = self._losses(outputs_BC, batch)
        if self._task.is_regression:
            low, per_unit = self.score_map
            outputs_BC = low + outputs_BC * per_unit
        kept = ("labels", "example_weights", "example_index")
        return {"outputs": outputs_BC, "losses": losses_B} | {name: batch[name] for name in kept}

    def eval_metrics(self, results: list) -> dict[str, float]:
        """Returns the loss (without weights or smoothing) and the metrics over all examples."""
        rows = real_rows(results)
        loss = {"loss": float(np.mean(rows["losses"], dtype=np.float64))}
        return loss | metrics(rows["outputs"], rows["labels"], self._task)

    def flops_per_token(self, seq_len: int) -> float:
        """Forward and backward FLOPs per token, without recomputation."""
        return encoder_flops_per_token(self.cfg, seq_len) + 6.0 * self.cfg.width**2 / seq_len

    def _weights(self, batch) -> jax.Array:
        if self._class_weights is None:
            return batch["example_weights"]
        return batch["example_weights"] * jnp.asarray(self._class_weights)[batch["labels"]]

    def _losses(self, outputs_BC: jax.Array, batch, smoothing: float = 0.0) -> jax.Array:
        if self._task.is_regression:
            low, per_unit = self.score_map
            return jnp.square(outputs_BC[:, 0] - (batch["labels"] - low) / per_unit)
        losses_B = cross_entropy(outputs_BC, batch["labels"])
        if not smoothing:
            return losses_B
        of_all_B = jax.nn.logsumexp(outputs_BC, axis=-1) - outputs_BC.mean(axis=-1)
        return (1 - smoothing) * losses_B + smoothing * of_all_B


def real_rows(results: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns the rows of all batches in the order of the examples, without padding rows."""
    rows = {name: np.concatenate([result[name] for result in results]) for name in results[0]}
    is_real = rows["example_weights"] > 0
    order = np.argsort(rows["example_index"][is_real], kind="stable")
    return {name: column[is_real][order] for name, column in rows.items()}


def predictions(outputs_NC: np.ndarray, task: ClassificationConfig) -> np.ndarray:
    """Returns the class of the highest output, (N,) int, or the score clipped to its range."""
    if task.is_regression:
        return np.clip(outputs_NC[:, 0], *task.scores)
    return outputs_NC.argmax(axis=-1)


def metrics(
    outputs_NC: np.ndarray, labels_N: np.ndarray, task: ClassificationConfig
) -> dict[str, float]:
    """Returns the metrics of the task by name."""
    predicted_N = predictions(outputs_NC, task)
    return {name: METRICS[name](predicted_N, labels_N) for name in task.metrics}
