"""Parts of a head of degree 0, scale invariant like the encoder. Ours, not the paper's.

Comments: degrees (arXiv 2202.00980, Table 2).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from sibert_jax.model import AffineNorm, ModelConfig, square_init

SHARDING = (  # for `TaskType.sharding`
    (r"head/(transform|pooler)/dense/kernel", P("fsdp", "tensor")),  # D, D
    (r"head/(transform|pooler)/norm/.+", P(None)),  # D
    (r"head/.+/rows", P(None, "fsdp")),  # outputs, D
    (r"head/logit_scale", P(None)),  # 2
)
# The recommended recipe for a model of degree 0 in all its parts: SGD on all parameters with
# orthogonalized matrix gradients and one norm per tensor (experiments/headline).
STATELESS = {
    "model.identity_init": True,
    "optim.name": "orthogonalized_sgd",
    "optim.blocks": "tensor",
    "optim.eta_lambda": 3e-4,
    "optim.warmup_fraction": 0.02,
    "optim.head.name": "same",
}
SCALE_RANGE = 4.0  # a learned scale stays within this factor of its initial value


def invariant_parts(task) -> tuple[str, ...]:
    """Returns the scale-invariant parts of a fine-tuning task, for `TaskType.invariant_parts`."""
    return ("encoder", "head") if task.head == "invariant" else ("encoder",)


class UnitFeatures(nn.Module):
    """Linear, LayerNorm with gain and bias, unit norm: (..., n·D) -> (..., D), degree 0."""

    cfg: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns float32 rows of norm 1."""
        c, init = self.cfg, square_init(self.cfg)
        if x.shape[-1] != c.width:
            init = nn.initializers.truncated_normal(c.init_std)
        x = nn.Dense(c.width, False, c.compute_dtype, kernel_init=init, name="dense")(x)  # 1
        x = AffineNorm(c.norm_eps, relative=True, name="norm")(x)  # 1
        return unit_rows(x.astype(jnp.float32))  # 0


def learned_scale(pair_2: jax.Array, start: float) -> jax.Array:
    """Returns s = start·4^cos 2φ for a pair (a, b) at angle φ: degree 0, `start` if a = b.

    A constant scale limits the confidence of predictions: appropriate while the features say little
    about a token, too small once they say much.

    Args:
      pair_2: a and b, float32.
      start: initial value of s, > 0.

    Returns:
      s, a scalar in [start/4, 4·start]. The form is ours.
    """
    a2, b2 = jnp.square(pair_2)
    return start * jnp.exp2(jnp.log2(SCALE_RANGE) * (a2 - b2) / (a2 + b2))


class CosineOutputs(nn.Module):
    """Outputs s·cos(x, e_n) for unit rows x and num_outputs learned rows e_n: degree 0."""

    num_outputs: int
    scale: float  # s
    init_std: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (..., D) to (..., num_outputs), float32."""
        init = nn.initializers.truncated_normal(self.init_std)
        rows_ND = self.param("rows", init, (self.num_outputs, x.shape[-1]), jnp.float32)
        return self.scale * jnp.einsum("...D,ND->...N", x, unit_rows(rows_ND))


def unit_rows(table: jax.Array) -> jax.Array:
    """Divides each row by its norm: (..., D), degree 0; an all-zero row stays zero."""
    return table * _inverse_root(jnp.square(table).sum(axis=-1, keepdims=True))


def unit_table(table_VD: jax.Array) -> jax.Array:
    """Divides a table by the root mean square of its rows' norms: degree 0."""
    return table_VD * _inverse_root(jnp.square(table_VD).sum(axis=-1, keepdims=True).mean())


def _inverse_root(square: jax.Array) -> jax.Array:
    return jnp.where(square > 0, jax.lax.rsqrt(jnp.where(square > 0, square, 1.0)), 0.0)
