"""Next-token prediction at every position: heads, loss, perplexity and bits per byte."""

import dataclasses
import math
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sibert_jax.keys import check, key
from sibert_jax.model import ModelConfig, encoder_flops_per_token
from sibert_jax.tasks.invariant_head import learned_scale
from sibert_jax.tasks.losses import table_cross_entropy
from sibert_jax.tasks.task import Task
from sibert_jax.tasks.token_outputs import (
    OutputProjection,
    TokenOutputConfig,
    invariant_projection,
    log_frequencies,
    save_counts,
    with_counts,
)


@dataclasses.dataclass(frozen=True)
class CausalLMConfig(TokenOutputConfig):
    """Keys under `task` of a causal language model; the last five are for --predict."""

    name: str = key("causal_lm", "kind of task, fixed by the configuration")
    head: str = key(
        "invariant", "type of output head; invariant: scale invariant, shares the token table; "
        "tied: GPT-2's, the token table alone", choices=("invariant", "tied"),
    )  # fmt: skip
    boundaries: str = key(
        "separator", "attention across documents packed in one example; separator: allowed; "
        "segments: not allowed, and positions restart with each document",
        choices=("separator", "segments"),
    )  # fmt: skip
    loss_blocks: int = key(
        8, "number of blocks of positions whose logits are computed in turn; more blocks need "
        "less memory", low=1,
    )  # fmt: skip
    max_new_tokens: int = key(
        64, "maximum number of tokens generated after a prompt", low=1, may_change=True
    )
    temperature: float = key(
        0.0, "sampling temperature; 0: always choose the most likely token", low=0, below=math.inf,
        may_change=True,
    )  # fmt: skip
    top_k: int = key(0, "sample from the k most likely tokens; 0: from all", low=0, may_change=True)
    top_p: float = key(
        1.0, "sample from the smallest set of most likely tokens with this total probability; 1: "
        "from all", above=0, high=1, may_change=True,
    )  # fmt: skip
    sampling_seed: int = key(0, "random seed for sampling", low=0, below=2**31, may_change=True)

    def __post_init__(self):
        check("task", self)


class TiedHead(nn.Module):
    """GPT-2's output: features times the token table, without own parameters."""

    @nn.compact
    def __call__(self, x_BLD: jax.Array, batch, token_table_VD: jax.Array, *, deterministic: bool):
        """Returns an `OutputProjection` of all positions."""
        del batch, deterministic
        return OutputProjection(x_BLD, token_table_VD, jnp.zeros(len(token_table_VD)))


class InvariantHead(nn.Module):
    """The head of pretraining that has degree 0, at every position: see `invariant_projection`."""

    cfg: ModelConfig
    logit_scale: float
    table_norm: str
    log_frequency: tuple[float, ...]

    @nn.compact
    def __call__(self, x_BLD: jax.Array, batch, token_table_VD: jax.Array, *, deterministic: bool):
        """Returns an `OutputProjection` of all positions."""
        del batch, deterministic
        pair_2 = self.param("logit_scale", nn.initializers.ones, (2,), jnp.float32)
        return invariant_projection(
            self.cfg,
            x_BLD,
            token_table_VD,
            scale=learned_scale(pair_2, self.logit_scale),
            table_norm=self.table_norm,
            log_frequency=self.log_frequency,
        )


class CausalLM(Task):
    """Predicts each token of a text from the ones before it.

    Args:
      model: config of a causal encoder.
      task: the task's config.
      seq_lens: a single length, L, tokens per example.
      token_counts: (V,), count of each token in the training text; None: uniform.
      tokens_per_byte: ratio in the held-out text, separators included; None: unknown.
    """

    loss_names = ("token_loss",)

    def __init__(
        self,
        model: ModelConfig,
        task: CausalLMConfig,
        seq_lens: tuple[int, ...],
        token_counts: np.ndarray | None = None,
        tokens_per_byte: float | None = None,
    ):
        if token_counts is None:
            token_counts = np.zeros(model.vocab_size)
        if task.head == "invariant":
            frequency = log_frequencies(token_counts)
            head = InvariantHead(model, task.logit_scale, task.table_norm, frequency)
        else:
            head = TiedHead()
        super().__init__(
            model,
            head,
            seq_lens=seq_lens,
            loss_scale=task.loss_scale,
            head_is_invariant="head" in invariant_parts(task),
        )
        self.task, self._token_counts, self._tokens_per_byte = task, token_counts, tokens_per_byte

    def own_shapes(self, num_rows: int, seq_len: int) -> dict:
        names = ("targets", "documents") if self.task.boundaries == "segments" else ("targets",)
        return dict.fromkeys(names, ((num_rows, seq_len), jnp.int32))

    def save(self, directory: pathlib.Path) -> None:
        """Writes the token counts that the outputs of the invariant head depend on."""
        if self.task.head == "invariant" and not self.problem:
            save_counts(directory, self._token_counts)

    def logits(self, params, batch) -> jax.Array:
        """Returns the logits of each next token, (B, L, V) float32, without dropout."""
        return self.apply(params, batch)[0].logits()

    def sums(self, params, batch, dropout_key: jax.Array | None = None) -> dict[str, jax.Array]:
        """Summed loss and dead rows over the batch, float32 scalars."""
        projection, dead_N = self.apply(params, batch, dropout_key)
        weights_BL, targets_BL = _weights(batch), batch["targets"]
        num_blocks = min(self.task.loss_blocks, targets_BL.shape[1])
        loss = table_cross_entropy(*projection, targets_BL, weights_BL, num_blocks)
        return {"token_loss": loss, "dead_attention_rows": jnp.sum(dead_N).astype(jnp.float32)}

    def denominators(self, batch) -> dict[str, jax.Array]:
        return {
            "token_loss": jnp.sum(_weights(batch)),
            "dead_attention_rows": self.attention_rows(batch),
        }

    def eval_batch(self, params, batch) -> tuple[jax.Array, jax.Array]:
        """Returns the summed loss and the number of tokens."""
        loss = self.sums(params, batch)["token_loss"]
        return loss, self.denominators(batch)["token_loss"]

    def eval_metrics(self, results: list) -> dict[str, float]:
        """Returns nats per token, perplexity and, if `tokens_per_byte` is known, bits per byte."""
        loss, tokens = np.sum(np.asarray(results, np.float64), axis=0)
        mean = loss / max(tokens, 1.0)
        metrics = {"loss": mean, "perplexity": math.exp(min(mean, 700.0))}
        if self._tokens_per_byte is not None:
            metrics["bits_per_byte"] = mean / math.log(2) * self._tokens_per_byte
        return metrics

    def flops_per_token(self, seq_len: int) -> float:
        """Forward and backward FLOPs without recomputation; causal attention counts in full."""
        c = self.cfg
        transform = c.width if self.task.head == "invariant" else 0
        return encoder_flops_per_token(c, seq_len) + 6.0 * c.width * (c.vocab_size + transform)


def _weights(batch) -> jax.Array:
    return batch["example_weights"][:, None] * batch["attention_mask"].astype(jnp.float32)


def restore(
    model: ModelConfig,
    task: CausalLMConfig,
    seq_lens: tuple[int, ...],
    workdir: pathlib.Path,
    kind: type[CausalLM] = CausalLM,
) -> CausalLM:
    """Restores the task of a run with its token counts; `kind` is `CausalLM` or a subclass."""
    if task.head != "invariant":
        return kind(model, task, seq_lens)
    return with_counts(lambda counts: kind(model, task, seq_lens, counts), workdir)


def invariant_parts(task: CausalLMConfig) -> tuple[str, ...]:
    """Returns the parts whose joint scale leaves the loss unchanged, given an invariant encoder."""
    # An unnormalized tied table multiplies the logits by its scale.
    return ("encoder", "head") if task.head == "invariant" else ()
