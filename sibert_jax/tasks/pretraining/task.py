"""Pretraining: masked-language modelling, and next-sentence prediction if asked for."""

import dataclasses
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sibert_jax.data import (
    Corpora,
    CorpusSpec,
    PackedExamples,
    PairExamples,
    PretrainingBatches,
    WeightedExamples,
    load_corpora,
)
from sibert_jax.errors import named_by
from sibert_jax.model import Encoder, ModelConfig, encoder_flops_per_token
from sibert_jax.tasks.apply import apply_model
from sibert_jax.tasks.losses import cross_entropy, table_cross_entropy
from sibert_jax.tasks.pretraining.heads import NormalizedHead, StandardHead
from sibert_jax.tasks.task import TaskData

HEADS = ("untied", "tied", "normalized")


@dataclasses.dataclass(frozen=True)
class PretrainingConfig:
    """Keys under `task` of a pretraining config."""

    name: str  # "pretraining"
    head: str  # "untied" (SIBERT), "tied" (BERT: the token table is the output table), "normalized"
    unigram_prior: bool  # logits start from the log frequency of the training tokens
    nsp: bool  # sentence pairs and the next-sentence loss; else text packed without padding
    mask_rate: float  # share of the real tokens to predict, in (0, 1)
    whole_word: bool  # mask all pieces of a word together
    loss_blocks: int  # parts in which the masked positions meet the output table: more, less memory
    loss_scale: float  # > 0, multiplies the loss that is differentiated, not the one reported

    def __post_init__(self):
        if self.head not in HEADS:
            raise ValueError(f"task.head={self.head!r} is unknown; choose one of {list(HEADS)}.")
        if self.head == "normalized" and not self.unigram_prior:
            raise ValueError(
                'task.unigram_prior=False with task.head="normalized": that head has no bias to '
                "learn the frequencies with; set it to True."
            )
        if not 0 < self.mask_rate < 1:
            raise ValueError(f"task.mask_rate={self.mask_rate} must lie between 0 and 1.")
        if self.loss_blocks < 1:
            raise ValueError(f"task.loss_blocks={self.loss_blocks} must be at least 1.")
        if self.loss_scale <= 0:
            raise ValueError(f"task.loss_scale={self.loss_scale} must be positive.")


class PretrainingModel(nn.Module):
    """Encoder and head; parameters under "encoder" and "head"."""

    cfg: ModelConfig
    task: PretrainingConfig
    log_frequency: tuple[float, ...]

    def setup(self):
        self.encoder = Encoder(self.cfg)
        if self.task.head == "normalized":
            self.head = NormalizedHead(self.cfg, self.task.nsp, self.log_frequency)
        else:
            tied = self.task.head == "tied"
            self.head = StandardHead(self.cfg, tied, self.task.nsp, self.log_frequency)

    def __call__(self, batch: dict[str, jax.Array], *, deterministic: bool = True):
        """Returns a `Readout` of the token logits, nsp_logits_B2 or None, dead_N."""
        x_BLD, dead_N = self.encoder(
            batch["tokens"], batch["segments"], batch["valid"], deterministic=deterministic
        )
        readout, nsp_B2 = self.head(x_BLD, batch["masked_positions"], self.encoder.token_table())
        return readout, nsp_B2, dead_N


class Pretraining:
    """The task as the training loop sees it: see `tasks.task.Task`.

    Args:
      model: sizes of the encoder.
      task: head and objectives.
      seq_len: L, tokens of an example.
      unigram_counts: (V,), how often each piece occurs in the training text; None: all alike.
    """

    labels = ()

    def __init__(
        self,
        model: ModelConfig,
        task: PretrainingConfig,
        seq_len: int,
        unigram_counts: np.ndarray | None = None,
    ):
        if unigram_counts is None:
            unigram_counts = np.zeros(model.vocab_size)
        frequency = (unigram_counts + 1.0) / (unigram_counts + 1.0).sum()
        self.cfg, self.task = model, task
        self.seq_lens, self.loss_scale = (seq_len,), task.loss_scale
        prior = tuple(np.log(frequency).tolist()) if task.unigram_prior else ()
        self.model = PretrainingModel(model, task, prior)
        self.loss_names = ("mlm_loss", "nsp_loss") if task.nsp else ("mlm_loss",)

    def abstract_batch(self, num_rows: int, seq_len: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of what `PretrainingBatches` makes."""
        shapes = {
            "tokens": ((num_rows, seq_len), jnp.int32),
            "segments": ((num_rows, seq_len), jnp.int32),
            "valid": ((num_rows, seq_len), jnp.bool_),
            "example_weights": ((num_rows,), jnp.float32),
            "nsp_labels": ((num_rows,), jnp.int32),
        }
        num_masked = math.ceil(self.task.mask_rate * seq_len)
        for name, dtype in (("positions", "int32"), ("targets", "int32"), ("weights", "float32")):
            shapes[f"masked_{name}"] = ((num_rows, num_masked), dtype)
        return {name: jax.ShapeDtypeStruct(*shape) for name, shape in shapes.items()}

    def init(self, key: jax.Array, batch: dict[str, jax.Array]):
        """Fresh float32 parameters {"encoder": ..., "head": ...}; `batch` gives the shapes."""
        return self.model.init(key, batch)["params"]

    def invariance_mask(self, params):
        """True on the leaves that are jointly scale invariant, False on the others."""
        head = self.task.head == "normalized"
        return {
            name: jax.tree.map(lambda _, inside=(name == "encoder" or head): inside, part)
            for name, part in params.items()
        }

    def apply(self, params, batch, dropout_key: jax.Array | None = None):
        """Returns logits_BPV, nsp_logits_B2 or None, dead_N; no dropout without a key."""
        readout, nsp_B2, dead_N = self._apply(params, batch, dropout_key)
        return readout.logits(), nsp_B2, dead_N

    def _apply(self, params, batch, dropout_key):
        return apply_model(self.model, self.cfg, params, batch, dropout_key)

    def sums(
        self, params, batch, dropout_key: jax.Array | None = None, *, accuracy: bool = False
    ) -> dict[str, jax.Array]:
        """Summed losses and counts over the batch, float32 scalars; `totals` has their weights."""
        readout, nsp_B2, dead_N = self._apply(params, batch, dropout_key)
        weights_BP, targets_BP = batch["masked_weights"], batch["masked_targets"]
        sums = {"dead_attention_rows": jnp.sum(dead_N).astype(jnp.float32)}
        if self.task.loss_blocks > 1 and not accuracy:
            sums["mlm_loss"] = table_cross_entropy(
                *readout, targets_BP, weights_BP, self.task.loss_blocks
            )
        else:
            logits_BPV = readout.logits()
            sums["mlm_loss"] = jnp.sum(weights_BP * cross_entropy(logits_BPV, targets_BP))
        if accuracy:
            hits_BP = (logits_BPV.argmax(axis=-1) == targets_BP).astype(jnp.float32)
            sums["mlm_accuracy"] = jnp.sum(weights_BP * hits_BP)
        if self.task.nsp:
            weights_B, labels_B = batch["example_weights"], batch["nsp_labels"]
            sums["nsp_loss"] = jnp.sum(weights_B * cross_entropy(nsp_B2, labels_B))
            if accuracy:
                hits_B = (nsp_B2.argmax(axis=-1) == labels_B).astype(jnp.float32)
                sums["nsp_accuracy"] = jnp.sum(weights_B * hits_B)
        return sums

    def totals(self, batch) -> dict[str, jax.Array]:
        """What each of `sums` is divided by: counts of this batch, float32, may be 0."""
        masked = jnp.sum(batch["masked_weights"])
        examples = jnp.sum(batch["example_weights"])
        rows = jnp.sum(batch["valid"], dtype=jnp.float32) * self.cfg.num_heads * self.cfg.depth
        return {
            "mlm_loss": masked,
            "mlm_accuracy": masked,
            "nsp_loss": examples,
            "nsp_accuracy": examples,
            "dead_attention_rows": rows,
        }

    def eval_batch(self, params, batch) -> dict[str, tuple[jax.Array, jax.Array]]:
        """(sum, total) of every metric."""
        sums, totals = self.sums(params, batch, accuracy=True), self.totals(batch)
        del sums["dead_attention_rows"]
        return {name: (value, totals[name]) for name, value in sums.items()}

    def eval_metrics(self, results: list) -> dict[str, float]:
        """Means over all batches, whatever the number of masked tokens in each."""
        sums = jax.tree.map(lambda *values: float(np.sum(np.asarray(values, np.float64))), *results)
        return {name: value / max(total, 1.0) for name, (value, total) in sums.items()}

    def flops_per_token(self, seq_len: int) -> float:
        """Forward and backward, model only: recomputation does not count.

        The head's matrices see the masked positions, those of the next-sentence loss one position
        of each example.
        """
        masked_share = math.ceil(self.task.mask_rate * seq_len) / seq_len
        head = 6.0 * self.cfg.width * (self.cfg.width + self.cfg.vocab_size) * masked_share
        if self.task.nsp:
            head += 6.0 * self.cfg.width * (self.cfg.width + 2) / seq_len
        return encoder_flops_per_token(self.cfg, seq_len) + head


def load_pretraining(
    model: ModelConfig,
    task: PretrainingConfig,
    data: CorpusSpec,
    *,
    seq_len: int,
    global_batch_size: int,
    seed: int,
    progress: Callable[[str], None],
) -> tuple[Pretraining, TaskData]:
    """Tokenises the text, or maps what an earlier call tokenised, and makes the task of it.

    Training batches are shuffled and their masks redrawn each epoch; the evaluation examples and
    their masks are the same for every seed.
    """
    corpora = load_corpora(data, progress=progress)
    train, valid = build_batches(
        corpora, task, seq_len=seq_len, global_batch_size=global_batch_size, seed=seed
    )
    padding = 1 - float(train.batch(0, slice(256))["valid"].mean())
    progress(
        f"{train.num_examples:,} examples of {seq_len} tokens to train on, "
        + (f"about {padding:.1%} of them padding" if task.nsp else "packed without padding")
        + f"; {valid.num_examples:,} to evaluate on"
    )
    pretraining = Pretraining(model, task, seq_len, corpora.unigram_counts)
    data = TaskData(
        train=train,
        valid=valid,
        fingerprint=corpora.fingerprint,
        steps_per_epoch=train.steps_per_epoch,
        tokenizer=corpora.tokenizer,
        held_out=(),
        main_metric="mlm_loss",
    )
    return pretraining, data


def build_batches(
    corpora: Corpora, task: PretrainingConfig, *, seq_len: int, global_batch_size: int, seed: int
) -> tuple[PretrainingBatches, PretrainingBatches]:
    """Batches for training and for evaluation."""
    tokenizer = corpora.tokenizer

    def examples(corpus, seed):
        if task.nsp:
            return PairExamples(corpus, seq_len, tokenizer, seed=seed)
        return PackedExamples(corpus, seq_len, tokenizer)

    def batches(examples, seed, shuffle):
        return PretrainingBatches(
            examples,
            tokenizer,
            global_batch_size=global_batch_size,
            seed=seed,
            mask_rate=task.mask_rate,
            whole_word=task.whole_word,
            shuffle=shuffle,
        )

    with named_by("data.path"):
        sets = [examples(corpus, seed) for corpus in corpora.train]
        train = sets[0] if len(sets) == 1 else WeightedExamples(sets, corpora.weights, seed)
        train_batches = batches(train, seed, True)
    with named_by("held-out text (data.valid_path, data.valid_fraction)"):
        return train_batches, batches(examples(corpora.valid, 0), 0, False)
