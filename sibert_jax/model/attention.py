"""Multi-head attention with ReLU-normalized weights (SIBERT) or softmax (BERT).

Li et al. 2022, Figure 7: Σ_h N(ReLU(x Wq_h (x Wk_h)ᵀ)) x Wv_h Wo_h with N(A)_ij = a_ij / Σ_j a_ij.
The paper covers neither padding nor rows without a positive score; both are handled here so that
the degree stays 0 (see `relu_attention`). Notation: config.py.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from sibert_jax.model.config import ModelConfig
from sibert_jax.model.constraints import constrain
from sibert_jax.model.norm import normalize
from sibert_jax.model.relu_attention import causal_mask, relu_attention, relu_weights
from sibert_jax.model.rotary import rotate


class Tokens(NamedTuple):
    """Positions of the tokens of a batch, and which of them a layer attends to.

    Attributes:
      mask_B1LM: bool, True for the keys that a query attends to (in a causal model only those that
        are not later than the query); or (B, 1, 1, M), the same for all queries.
      position_BL: int32, position of each query in its text; or (1, L), the same in every row.
      place: int32, index of the first query among the keys.
      documents_BL: int32 in [0, L), the document of each token if a row holds several: a query
        attends only to keys of its own document; not supported with a cache. None: one document per
        row.
    """

    mask_B1LM: jax.Array
    position_BL: jax.Array
    place: jax.Array | int = 0
    documents_BL: jax.Array | None = None


def softmax_weights(logits_BHLM: jax.Array, mask_B1LM: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Softmax over the valid keys; no row is ever dead. Shapes as in `relu_weights`."""
    # A row without a valid key attends to all padding: 0/0 there would spoil the batch.
    mask_B1LM = mask_B1LM | ~mask_B1LM.any(axis=-1, keepdims=True)
    weights_BHLM = jax.nn.softmax(logits_BHLM.astype(jnp.float32), axis=-1, where=mask_B1LM)
    return weights_BHLM.astype(logits_BHLM.dtype), jnp.zeros_like(weights_BHLM[..., :1], bool)


class Attention(nn.Module):
    """Self-attention. SIBERT: degree 0 -> 2 (value and output projections); BERT: softmax, biases.

    If the collection "cache" is mutable, keys and values are cached there, (B, M, H, K) each. The
    first call creates the cache with the length of its own (possibly padded) input; before later
    calls it must be padded to the required length. Later calls write their keys and values at
    `place` and attend to all keys that the mask allows.

    Attributes:
      cfg: the model's sizes.
      kind: "relu" (SIBERT), "softmax" (BERT: logits/√K) or "qk_norm" (softmax of normalized
        queries and keys, whose logits have degree 0).
      qkv_bias: whether queries, keys and values have biases (degree 1, like their projections).
      out_bias: whether the output has a bias: degree 1 on a degree-2 tensor, so never in SIBERT.
    """

    cfg: ModelConfig
    kind: str
    qkv_bias: bool
    out_bias: bool

    @nn.compact
    def __call__(
        self,
        x_BLD: jax.Array,
        tokens: Tokens,
        *,
        deterministic: bool,
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the output (B, L, D) and the dead rows (B, H, L, 1), bool.

        Args:
          x_BLD: the layer's input.
          tokens: positions and masks of the tokens.
          deterministic: whether to disable dropout on the weights.
        """
        c = self.cfg
        dtype, init = c.compute_dtype, nn.initializers.truncated_normal(c.init_std)
        mask_B1LM, position_BL, place, documents_BL = tokens

        x_TD = x_BLD.reshape(-1, c.width)

        def project(name: str) -> jax.Array:
            shape = (c.width, c.num_heads, c.head_width)
            product = nn.Einsum(
                shape, "TD,DHK->THK", self.qkv_bias, dtype, kernel_init=init, name=name
            )
            return constrain(product(x_TD).reshape(*x_BLD.shape[:2], *shape[1:]), "BLHK")

        q_BLHK, k_BMHK, v_BMHK = project("query"), project("key"), project("value")
        if self.kind == "qk_norm":
            q_BLHK, k_BMHK = normalize(q_BLHK, c.norm_eps), normalize(k_BMHK, c.norm_eps)
        if c.positions == "rotary":
            q_BLHK, k_BMHK = rotate(q_BLHK, position_BL), rotate(k_BMHK, position_BL)
        if self.is_mutable_collection("cache") and not self.is_initializing():
            k_BMHK, v_BMHK = (
                self._cached(f"cached_{name}", new, place)
                for name, new in (("key", k_BMHK), ("value", v_BMHK))
            )
        num_queries, num_keys = q_BLHK.shape[1], k_BMHK.shape[1]
        drops = c.dropout > 0 and not deterministic
        varies = mask_B1LM.shape[2] > 1 or num_queries != num_keys
        if self.kind == "relu" and not drops and not varies:
            y_BLHK, dead_BHL1 = relu_attention(
                q_BLHK, k_BMHK, v_BMHK, mask_B1LM[:, 0, 0], documents_BL, causal=c.is_causal,
                impl=c.attention_impl,
            )  # fmt: skip
        else:
            if documents_BL is not None:
                same_BLM = documents_BL[:, :, None] == documents_BL[:, None, :]
                mask_B1LM = mask_B1LM & same_BLM[:, None]
            if c.is_causal:
                mask_B1LM = mask_B1LM & causal_mask(num_queries, num_keys, place)[None, None]
            if self.kind != "relu":  # a constant factor cancels in ReLU attention
                q_BLHK = q_BLHK * jnp.asarray(c.head_width**-0.5, dtype)
            logits_BHLM = jnp.einsum("BLHK,BMHK->BHLM", q_BLHK, k_BMHK)
            to_weights = relu_weights if self.kind == "relu" else softmax_weights
            weights_BHLM, dead_BHL1 = to_weights(logits_BHLM, mask_B1LM)
            weights_BHLM = nn.Dropout(c.dropout)(weights_BHLM, deterministic=deterministic)
            y_BLHK = jnp.einsum("BHLM,BMHK->BLHK", weights_BHLM, v_BMHK)
        y_TD = nn.Einsum(
            (c.num_heads, c.head_width, c.width), "THK,HKD->TD", self.out_bias, dtype,
            kernel_init=nn.initializers.truncated_normal(c.output_std), name="out",
        )(y_BLHK.reshape(-1, c.num_heads, c.head_width))  # fmt: skip
        return y_TD.reshape(x_BLD.shape), dead_BHL1

    def _cached(self, name: str, new_BLHK: jax.Array, place) -> jax.Array:
        cached = self.variable("cache", name, lambda: new_BLHK)
        cached.value = jax.lax.dynamic_update_slice_in_dim(cached.value, new_BLHK, place, axis=1)
        return cached.value
