"""Heads for masked-language modeling and next-sentence prediction. Notation: model/config.py."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from sibert_jax.model import AffineNorm, ModelConfig, constrain, square_init
from sibert_jax.tasks.invariant_head import CosineOutputs, UnitFeatures, learned_scale
from sibert_jax.tasks.token_outputs import OutputProjection, invariant_projection


class StandardHead(nn.Module):
    """BERT's head (Devlin et al. 2019): not scale invariant, trained by LAMB in the recipe.

    MLM: dense, GELU, LayerNorm, then the output embeddings and a bias. NSP: the pooler (dense and
    tanh on the first token), then two logits.
    """

    cfg: ModelConfig
    tied: bool  # the output table is the encoder's token table
    nsp: bool
    log_frequency: tuple[float, ...]  # V numbers that initialize the output bias; (): zeros

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

    See `invariant_projection`. NSP: likewise with the first token, two separate rows and a constant
    s.
    """

    cfg: ModelConfig
    nsp: bool
    logit_scale: float  # initial value of s
    table_norm: str
    log_frequency: tuple[float, ...]

    @nn.compact
    def __call__(self, x_BLD: jax.Array, batch, token_table_VD: jax.Array, *, deterministic: bool):
        """See `StandardHead`."""
        del deterministic
        c, positions_BP = self.cfg, batch["masked_positions"]
        pair_2 = self.param("logit_scale", nn.initializers.ones, (2,), jnp.float32)
        projection = invariant_projection(
            c,
            masked_rows(x_BLD, positions_BP).reshape(*positions_BP.shape, -1),
            token_table_VD,
            scale=learned_scale(pair_2, self.logit_scale),
            table_norm=self.table_norm,
            log_frequency=self.log_frequency,
        )
        if not self.nsp:
            return projection, None
        pooled_BD = UnitFeatures(c, name="pooler")(x_BLD[:, 0])
        outputs = CosineOutputs(2, self.logit_scale, c.init_std, name="nsp")
        return projection, outputs(pooled_BD)


def masked_rows(x_BLD: jax.Array, positions_BP: jax.Array) -> jax.Array:
    """Returns the features of the masked positions, as rows (B·P, D)."""
    h_BPD = constrain(jnp.take_along_axis(x_BLD, positions_BP[..., None], axis=1), "BPD")
    return h_BPD.reshape(-1, x_BLD.shape[-1])
