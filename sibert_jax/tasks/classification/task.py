"""Classification and regression of sentences: model, loss and metrics. Letters: model/config.py.

C is the number of classes, 1 for a score.
"""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sibert_jax.keys import check, key
from sibert_jax.model import ModelConfig, encoder_flops_per_token
from sibert_jax.tasks.classification.glue import MAX_SCORE, METRICS, TASKS, GlueTask
from sibert_jax.tasks.finetuning import tab_lines
from sibert_jax.tasks.invariant_head import CosineOutputs, UnitFeatures, invariant_parts
from sibert_jax.tasks.losses import cross_entropy
from sibert_jax.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class ClassificationConfig:
    """Keys under `task` of a classification config."""

    name: str = key("classification", "classification")
    dataset: str = key("sst2", "columns, labels and metrics", choices=tuple(TASKS))
    head: str = key(
        "standard", "standard: BERT's; invariant: scale invariant, as the encoder of SIBERT is",
        choices=("standard", "invariant"),
    )  # fmt: skip
    logit_scale: float = key(
        8.0, "of the invariant head: the largest logit", above=0, below=math.inf
    )
    strict: bool = key(
        False, "stop at a broken row of a file, instead of leaving it out", may_change=True
    )
    loss_scale: float = key(
        1.0, "multiplies the loss that is differentiated", above=0, below=math.inf
    )

    def __post_init__(self):
        check("task", self)

    @property
    def glue(self) -> GlueTask:
        """Columns, labels and metrics."""
        return TASKS[self.dataset]


class ClassificationHead(nn.Module):
    """BERT's: pooler (dense, tanh, on the first token), dropout, one dense layer.

    It is not scale invariant; LAMB trains it in the paper (Devlin et al. 2019, §4.1; Li et al.
    2022, §5).
    """

    cfg: ModelConfig
    num_outputs: int

    @nn.compact
    def __call__(self, x_BLD: jax.Array, batch, token_table_VD: jax.Array, *, deterministic: bool):
        """Returns outputs_BC, float32."""
        del batch, token_table_VD
        c = self.cfg
        init = nn.initializers.truncated_normal(c.init_std)
        dense = nn.Dense(c.width, dtype=c.compute_dtype, kernel_init=init, name="pooler")
        pooled_BD = jnp.tanh(dense(x_BLD[:, 0]).astype(jnp.float32))
        pooled_BD = nn.Dropout(c.dropout)(pooled_BD, deterministic=deterministic)
        return nn.Dense(self.num_outputs, kernel_init=init, name="classifier")(pooled_BD)


class InvariantClassificationHead(nn.Module):
    """A head of degree 0, so that plain SGD can fine-tune the whole model: ours, not the paper's.

    Classes: s·cos(h, e_c) with h the features of the first token. A score: between 0 and MAX_SCORE,
    in proportion to 1 + cos(h, e).
    """

    cfg: ModelConfig
    num_outputs: int
    logit_scale: float  # s

    @nn.compact
    def __call__(self, x_BLD: jax.Array, batch, token_table_VD: jax.Array, *, deterministic: bool):
        """Returns outputs_BC, float32."""
        del batch, token_table_VD
        c = self.cfg
        pooled_BD = UnitFeatures(c, name="pooler")(x_BLD[:, 0])
        pooled_BD = nn.Dropout(c.dropout)(pooled_BD, deterministic=deterministic)
        is_score = self.num_outputs == 1
        scale = MAX_SCORE / 2 if is_score else self.logit_scale
        outputs = CosineOutputs(self.num_outputs, scale, c.init_std, name="classifier")
        return outputs(pooled_BD) + (MAX_SCORE / 2 if is_score else 0.0)


class Classification(Task):
    """Classification or regression of sentences and pairs of them.

    Args:
      model: sizes of the encoder.
      task: the dataset, which says the labels.
      seq_lens: the lengths that batches have, ascending.
    """

    loss_names = ("label_loss",)

    def __init__(self, model: ModelConfig, task: ClassificationConfig, seq_lens: tuple[int, ...]):
        self.glue = task.glue
        self.labels = self.glue.labels or ("score",)
        if task.head == "invariant":
            head = InvariantClassificationHead(model, len(self.labels), task.logit_scale)
        else:
            head = ClassificationHead(model, len(self.labels))
        super().__init__(
            model,
            head,
            seq_lens=seq_lens,
            loss_scale=task.loss_scale,
            head_is_invariant="head" in invariant_parts(task),
        )

    def own_shapes(self, num_rows: int, seq_len: int) -> dict:
        label_dtype = jnp.int32 if self.glue.labels else jnp.float32
        return {"labels": ((num_rows,), label_dtype), "example_index": ((num_rows,), jnp.int32)}

    def sums(self, params, batch, dropout_key: jax.Array | None = None) -> dict[str, jax.Array]:
        """Summed cross entropy or squared error, and dead rows: float32 scalars."""
        outputs_BC, dead_N = self.apply(params, batch, dropout_key)
        return {
            "label_loss": jnp.sum(batch["example_weights"] * self._losses(outputs_BC, batch)),
            "dead_attention_rows": jnp.sum(dead_N).astype(jnp.float32),
        }

    def denominators(self, batch) -> dict[str, jax.Array]:
        examples = jnp.sum(batch["example_weights"])
        return {"label_loss": examples, "dead_attention_rows": self.attention_rows(batch)}

    def eval_batch(self, params, batch) -> dict[str, jax.Array]:
        """Outputs and losses of each row, and which example it is."""
        outputs_BC, _ = self.apply(params, batch)
        losses_B = self._losses(outputs_BC, batch)
        kept = ("labels", "example_weights", "example_index")
        return {"outputs": outputs_BC, "losses": losses_B} | {name: batch[name] for name in kept}

    def eval_metrics(self, results: list) -> dict[str, float]:
        """The loss and the official metrics of all examples of all batches."""
        rows = real_rows(results)
        predicted_N = predictions(rows["outputs"], self.glue)
        scores = {name: METRICS[name](predicted_N, rows["labels"]) for name in self.glue.metrics}
        return {"loss": float(np.mean(rows["losses"], dtype=np.float64))} | scores

    def flops_per_token(self, seq_len: int) -> float:
        """Forward and backward, model only: recomputation does not count."""
        return encoder_flops_per_token(self.cfg, seq_len) + 6.0 * self.cfg.width**2 / seq_len

    def _losses(self, outputs_BC: jax.Array, batch) -> jax.Array:
        if self.glue.labels:
            return cross_entropy(outputs_BC, batch["labels"])
        return jnp.square(outputs_BC[:, 0] - batch["labels"])


def real_rows(results: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The rows of all batches in the order of the examples, without those that fill up."""
    rows = {name: np.concatenate([result[name] for result in results]) for name in results[0]}
    is_real = rows["example_weights"] > 0
    order = np.argsort(rows["example_index"][is_real], kind="stable")
    return {name: column[is_real][order] for name, column in rows.items()}


def predictions(outputs_NC: np.ndarray, glue: GlueTask) -> np.ndarray:
    """The class of the highest output, (N,) int; or the output itself, a score."""
    return outputs_NC.argmax(axis=-1) if glue.labels else outputs_NC[:, 0]


def predicted_labels(outputs_NC: np.ndarray, glue: GlueTask) -> list[str]:
    """Predictions as GLUE's files write them; scores within their range, to three places."""
    values_N = predictions(outputs_NC, glue)
    if glue.labels:
        return [glue.labels[value] for value in values_N]
    return [f"{value:.3f}" for value in np.clip(values_N, 0, MAX_SCORE)]


MOST_COLUMNS = 20  # classes whose probabilities have a column each


def predicted_records(outputs_NC: np.ndarray, glue: GlueTask) -> list[dict]:
    """An answer each: {"prediction", "probability", "probabilities": {label: p}}, or a score."""
    names = predicted_labels(outputs_NC, glue)
    if not glue.labels:
        return [{"prediction": float(name)} for name in names]
    exp_NC = np.exp(outputs_NC - outputs_NC.max(axis=-1, keepdims=True))
    probability_NC = (exp_NC / exp_NC.sum(axis=-1, keepdims=True)).astype(np.float64)
    return [
        {
            "prediction": name,
            "probability": float(row.max()),
            "probabilities": dict(zip(glue.labels, row.tolist())),
        }
        for name, row in zip(names, probability_NC)
    ]


def answer_lines(records: list[dict]) -> list[str]:
    """Tab-separated records; of up to `MOST_COLUMNS` classes each has a column, "p(LABEL)"."""
    flat = []
    for record in records:
        each = record.get("probabilities", {})
        columns = {f"p({label})": p for label, p in each.items()}
        shown = columns if len(columns) <= MOST_COLUMNS else {}
        flat.append({k: v for k, v in record.items() if k != "probabilities"} | shown)
    return tab_lines(flat)
