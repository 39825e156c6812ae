"""Heads for masked-language modeling and next-sentence prediction. Letters: model/config.py."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from sibert_jax.model import AffineNorm, ModelConfig, constrain, square_init
from sibert_jax.tasks.invariant_head import (
    CosineOutputs,
    UnitFeatures,
    learned_scale,
    unit_rows,
    unit_table,
)
from sibert_jax.tasks.losses import table_logits


class OutputProjection(NamedTuple):
    """The factors of the token logits, h · tableᵀ + bias."""

    h_BPD: jax.Array  # compute dtype
    table_VD: jax.Array  # float32
    bias_V: jax.Array  # float32

    def logits(self) -> jax.Array:
        """The whole product, (B, P, V), float32."""
        h_TD = self.h_BPD.reshape(-1, self.h_BPD.shape[-1])
        logits_TV = table_logits(h_TD, self.table_VD, self.bias_V)
        return logits_TV.reshape(*self.h_BPD.shape[:2], -1)


class StandardHead(nn.Module):
    """BERT's head (Devlin et al. 2019): not scale invariant, trained by LAMB in the recipe.

    MLM: dense, GELU, LayerNorm, then the table of output embeddings and a bias. NSP: the pooler
    (dense, tanh, on the first token), then two logits.
    """

    cfg: ModelConfig
    tied: bool  # the output table is the encoder's token table
    nsp: bool
    log_frequency: tuple[float, ...]  # V numbers that the output bias starts from; (): zeros

    @nn.compact
    def __call__(self, x_BLD: jax.Array, batch, token_table_VD: jax.Array, *, deterministic: bool):
        """Returns an `OutputProjection` and nsp_logits_B2 (float32; None without NSP)."""
        del deterministic
        c, dtype, positions_BP = self.cfg, self.cfg.compute_dtype, batch["masked_positions"]
        init = nn.initializers.truncated_normal(c.init_std)
        h_TD = masked_rows(x_BLD, positions_BP)
        h_TD = nn.Dense(c.width, dtype=dtype, kernel_init=square_init(c), name="transform")(h_TD)
        h_TD = nn.gelu(h_TD, approximate=False)
        h_TD = AffineNorm(c.norm_eps, relative=False, name="transform_norm")(h_TD)
        table_VD = token_table_VD if self.tied else self.param(
            "output", init, (c.vocab_size, c.width), jnp.float32
        )  # fmt: skip
        prior_V = jnp.asarray(self.log_frequency or (0.0,) * c.vocab_size, jnp.float32)
        bias_V = self.param("output_bias", lambda key: prior_V)
        projection = OutputProjection(h_TD.reshape(*positions_BP.shape, -1), table_VD, bias_V)
        if not self.nsp:
            return projection, None
        pooled_BD = nn.Dense(c.width, dtype=dtype, kernel_init=init, name="pooler")(x_BLD[:, 0])
        nsp_B2 = nn.Dense(2, dtype=dtype, kernel_init=init, name="nsp")(jnp.tanh(pooled_BD))
        return projection, nsp_B2.astype(jnp.float32)


class InvariantHead(nn.Module):
    """A tied head of degree 0, so that plain SGD can train the whole model: ours, not the paper's.

    logits = s·cos(h, e_v) + log frequency of v, with h = γ ⊙ N(x W) + β and e_v the rows of the
    token table. The frequencies are constants; s is learned. NSP: the same with a pooled token, two
    rows of their own and a constant s.

    Degrees: W (1) -> N (0) -> γ, β (1) -> over its norm (0); rows over their norms (0).
    """

    cfg: ModelConfig
    nsp: bool
    logit_scale: float  # that s starts from
    table_norm: str  # "rows": each row over its norm; "table": all over their root mean square
    log_frequency: tuple[float, ...]  # V numbers

    @nn.compact
    def __call__(self, x_BLD: jax.Array, batch, token_table_VD: jax.Array, *, deterministic: bool):
        """As `StandardHead`."""
        del deterministic
        c, positions_BP = self.cfg, batch["masked_positions"]
        h_TD = UnitFeatures(c, name="transform")(masked_rows(x_BLD, positions_BP))
        to_unit = unit_rows if self.table_norm == "rows" else unit_table
        table_VD = to_unit(token_table_VD)
        prior_V = jnp.asarray(self.log_frequency, jnp.float32)
        pair_2 = self.param("logit_scale", nn.initializers.ones, (2,), jnp.float32)
        h_BPD = (learned_scale(pair_2, self.logit_scale) * h_TD).astype(c.compute_dtype)
        h_BPD = h_BPD.reshape(*positions_BP.shape, -1)
        projection = OutputProjection(h_BPD, table_VD, prior_V)
        if not self.nsp:
            return projection, None
        pooled_BD = UnitFeatures(c, name="pooler")(x_BLD[:, 0])
        outputs = CosineOutputs(2, self.logit_scale, c.init_std, name="nsp")
        return projection, outputs(pooled_BD)


def masked_rows(x_BLD: jax.Array, positions_BP: jax.Array) -> jax.Array:
    """The features to predict from, as rows (B·P, D)."""
    h_BPD = constrain(jnp.take_along_axis(x_BLD, positions_BP[..., None], axis=1), "BPD")
    return h_BPD.reshape(-1, x_BLD.shape[-1])
