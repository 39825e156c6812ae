"""Pretraining: masked-language modeling and optional next-sentence prediction."""

import dataclasses
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from sibert_jax.data import WordPiece
from sibert_jax.errors import ConfigError
from sibert_jax.keys import check, key
from sibert_jax.model import ModelConfig, encoder_flops_per_token
from sibert_jax.tasks.losses import cross_entropy, table_cross_entropy
from sibert_jax.tasks.pretraining.heads import InvariantHead, StandardHead
from sibert_jax.tasks.task import Task
from sibert_jax.tasks.token_outputs import (
    TokenOutputConfig,
    log_frequencies,
    save_counts,
    with_counts,
)


@dataclasses.dataclass(frozen=True)
class PretrainingConfig(TokenOutputConfig):
    """Keys under `task` of a pretraining config."""

    name: str = key("pretraining", "kind of task, fixed by the configuration")
    head: str = key(
        "invariant", "type of output head; invariant: scale invariant, shares the token table; "
        "tied: BERT's, shares the token table; untied: BERT's with its own output table, as in "
        "the paper", choices=("invariant", "tied", "untied"),
    )  # fmt: skip
    unigram_prior: bool = key(
        True, "initialize the output bias with the log frequencies of the tokens"
    )
    nsp: bool = key(True, "add the next-sentence prediction loss; False: pack text without padding")
    mask_rate: float = key(0.15, "fraction of tokens to mask and predict", above=0, below=1)
    whole_word: bool = key(False, "mask all tokens of a word together")
    loss_blocks: int = key(
        1, "number of blocks of masked positions whose logits are computed in turn; more blocks "
        "need less memory", low=1,
    )  # fmt: skip

    def __post_init__(self):
        check("task", self)
        if self.head == "invariant" and not self.unigram_prior:
            raise ConfigError(
                'task.unigram_prior=False with task.head="invariant": that head has no bias to '
                "learn the frequencies with; set it to True."
            )


class Pretraining(Task):
    """Masked-language modeling and optional next-sentence prediction.

    Args:
      model: the encoder's config.
      task: the task's config.
      seq_lens: a single length, L, tokens per example.
      unigram_counts: (V,), count of each token in the training text; None: uniform.
    """

    def __init__(
        self,
        model: ModelConfig,
        task: PretrainingConfig,
        seq_lens: tuple[int, ...],
        unigram_counts: np.ndarray | None = None,
    ):
        if unigram_counts is None:
            unigram_counts = np.zeros(model.vocab_size)
        log_frequency = log_frequencies(unigram_counts)
        prior = log_frequency if task.unigram_prior else ()
        if task.head == "invariant":
            head = InvariantHead(model, task.nsp, task.logit_scale, task.table_norm, prior)
        else:
            head = StandardHead(model, task.head == "tied", task.nsp, prior)
        super().__init__(
            model,
            head,
            seq_lens=seq_lens,
            loss_scale=task.loss_scale,
            head_is_invariant="head" in invariant_parts(task),
        )
        self.task, self._unigram_counts = task, unigram_counts
        self._fifth_V = fifths(np.exp(log_frequency))
        self.loss_names = ("mlm_loss", "nsp_loss") if task.nsp else ("mlm_loss",)

    def own_shapes(self, num_rows: int, seq_len: int) -> dict:
        shapes = {"nsp_labels": ((num_rows,), jnp.int32)}
        num_masked = math.ceil(self.task.mask_rate * seq_len)
        for name, dtype in (("positions", "int32"), ("targets", "int32"), ("weights", "float32")):
            shapes[f"masked_{name}"] = ((num_rows, num_masked), dtype)
        return shapes

    def save(self, directory: pathlib.Path) -> None:
        """Writes the token counts that the outputs of the invariant head depend on."""
        if self.task.head == "invariant" and not self.problem:
            save_counts(directory, self._unigram_counts)

    def logits(self, params, batch):
        """Returns logits_BPV and nsp_logits_B2 or None, without dropout."""
        (projection, nsp_B2), _ = self.apply(params, batch)
        return projection.logits(), nsp_B2

    def sums(
        self, params, batch, dropout_key: jax.Array | None = None, *, accuracy: bool = False
    ) -> dict[str, jax.Array]:
        """Returns losses and counts summed over the batch, float32 scalars."""
        (projection, nsp_B2), dead_N = self.apply(params, batch, dropout_key)
        weights_BP, targets_BP = batch["masked_weights"], batch["masked_targets"]
        sums = {"dead_attention_rows": jnp.sum(dead_N).astype(jnp.float32)}
        if self.task.loss_blocks > 1 and not accuracy:
            sums["mlm_loss"] = table_cross_entropy(
                *projection, targets_BP, weights_BP, self.task.loss_blocks
            )
        else:
            logits_BPV = projection.logits()
            sums["mlm_loss"] = jnp.sum(weights_BP * cross_entropy(logits_BPV, targets_BP))
        if accuracy:
            hits_BP = (logits_BPV.argmax(axis=-1) == targets_BP).astype(jnp.float32)
            sums["mlm_accuracy"] = jnp.sum(weights_BP * hits_BP)
            losses_BP = weights_BP * cross_entropy(logits_BPV, targets_BP)
            for fifth, inside_BP in enumerate(self._in_fifths(batch), 1):
                sums[f"mlm_loss_fifth_{fifth}"] = jnp.sum(losses_BP * inside_BP)
        if self.task.nsp:
            weights_B, labels_B = batch["example_weights"], batch["nsp_labels"]
            sums["nsp_loss"] = jnp.sum(weights_B * cross_entropy(nsp_B2, labels_B))
            if accuracy:
                hits_B = (nsp_B2.argmax(axis=-1) == labels_B).astype(jnp.float32)
                sums["nsp_accuracy"] = jnp.sum(weights_B * hits_B)
        return sums

    def denominators(self, batch) -> dict[str, jax.Array]:
        masked = jnp.sum(batch["masked_weights"])
        examples = jnp.sum(batch["example_weights"])
        return {
            "mlm_loss": masked,
            "mlm_accuracy": masked,
            "nsp_loss": examples,
            "nsp_accuracy": examples,
            "dead_attention_rows": self.attention_rows(batch),
        }

    def _in_fifths(self, batch) -> list[jax.Array]:
        """Returns five (B, P) masks: 1.0 where the target belongs to that frequency fifth."""
        fifth_BP = jnp.asarray(self._fifth_V)[batch["masked_targets"]]
        return [(fifth_BP == i).astype(jnp.float32) for i in range(5)]

    def eval_batch(self, params, batch) -> dict[str, tuple[jax.Array, jax.Array]]:
        """Returns the sum and the denominator of every metric."""
        sums, denominators = self.sums(params, batch, accuracy=True), self.denominators(batch)
        for fifth, inside_BP in enumerate(self._in_fifths(batch), 1):
            denominators[f"mlm_loss_fifth_{fifth}"] = jnp.sum(batch["masked_weights"] * inside_BP)
        del sums["dead_attention_rows"]
        return {name: (value, denominators[name]) for name, value in sums.items()}

    def eval_metrics(self, results: list) -> dict[str, float]:
        """Returns means over all batches, weighted by their denominators."""
        sums = jax.tree.map(lambda *values: float(np.sum(np.asarray(values, np.float64))), *results)
        return {name: value / max(denominator, 1.0) for name, (value, denominator) in sums.items()}

    def flops_per_token(self, seq_len: int) -> float:
        """Forward and backward FLOPs per token, without recomputation.

        The head's matrices are applied to the masked positions, those of the next-sentence loss to
        one position per example.
        """
        masked_share = math.ceil(self.task.mask_rate * seq_len) / seq_len
        head = 6.0 * self.cfg.width * (self.cfg.width + self.cfg.vocab_size) * masked_share
        if self.task.nsp:
            head += 6.0 * self.cfg.width * (self.cfg.width + 2) / seq_len
        return encoder_flops_per_token(self.cfg, seq_len) + head


def restore(
    model: ModelConfig, task: PretrainingConfig, seq_lens: tuple[int, ...], workdir: pathlib.Path
) -> Pretraining:
    """Restores the task of a run with the token counts of its training text."""
    if task.head != "invariant":
        return Pretraining(model, task, seq_lens)
    return with_counts(lambda counts: Pretraining(model, task, seq_lens, counts), workdir)


def fifths(frequency_V: np.ndarray) -> np.ndarray:
    """Returns 0 … 4 per token: 0 for the most frequent ones, which make up a fifth of the text."""
    order = np.argsort(-frequency_V, kind="stable")
    share = np.cumsum(frequency_V[order]) - frequency_V[order] / 2
    fifth_V = np.empty(len(order), np.int32)
    fifth_V[order] = np.minimum(5 * share, 4)
    return fifth_V


def invariant_parts(task: PretrainingConfig) -> tuple[str, ...]:
    """Returns the parts whose joint scale leaves the loss unchanged, given an invariant encoder."""
    # An unnormalized tied table multiplies the logits by its scale.
    return {"untied": ("encoder",), "tied": (), "invariant": ("encoder", "head")}[task.head]


def check_keys(model: ModelConfig, task: PretrainingConfig, data) -> None:
    """Raises ConfigError if encoder, head and tokenizer do not fit together."""
    if data.tokenizer != WordPiece.kind:
        raise ConfigError(
            f"data.tokenizer={data.tokenizer!r} has no [MASK], which task.name='pretraining' "
            "needs; set data.tokenizer='wordpiece'."
        )
    if task.nsp and model.num_segments < 2:
        raise ConfigError(
            f"task.nsp=True needs model.num_segments=2, found {model.num_segments}: the two "
            "sentences are told apart by the segment table."
        )
