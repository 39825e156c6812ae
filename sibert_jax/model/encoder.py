"""Stem, stack of layers, final norm: token ids -> (B, L, D) features. Notation: config.py.

Degrees of the SIBERT encoder: Embed (1) -> LayerNorm with gain and bias (1) -> linear (2) -> layers
(2 -> 2) -> LayerNorm without affine (0). The paper does not state the order of the stem; this one
has consistent degrees and leaves few attention rows dead at initialization.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from sibert_jax.model.attention import Tokens
from sibert_jax.model.config import ARCHS, ModelConfig
from sibert_jax.model.constraints import constrain
from sibert_jax.model.layers import LAYERS, square_init
from sibert_jax.model.norm import AffineNorm, normalize


class Embedding(nn.Module):
    """The sum of token (+ position) (+ segment) embeddings: degree 1; float32 tables (rows, D)."""

    cfg: ModelConfig

    def setup(self):
        init, c = nn.initializers.truncated_normal(self.cfg.init_std), self.cfg
        self.token = self.param("token", init, (c.vocab_size, c.width), jnp.float32)
        if c.positions == "learned":
            self.position = self.param("position", init, (c.max_len, c.width), jnp.float32)
        if c.has_segments:
            self.segment = self.param("segment", init, (c.num_segments, c.width), jnp.float32)

    def __call__(self, tokens_BL: jax.Array, segments_BL: jax.Array, tokens: Tokens) -> jax.Array:
        seq_len = tokens_BL.shape[1]
        if seq_len > self.cfg.max_len:
            raise ValueError(
                f"sequences of {seq_len} tokens are longer than model.max_len={self.cfg.max_len}."
            )
        dtype = self.cfg.compute_dtype
        # Round only after the lookup: a frequent token's gradient is a sum of thousands of rows.
        x_BLD = constrain(constrain(self.token, "VD")[tokens_BL].astype(dtype), "BLD")
        if self.cfg.positions == "learned" and tokens.documents_BL is None:
            position_LD = jax.lax.dynamic_slice_in_dim(self.position, tokens.place, seq_len)
            x_BLD += position_LD.astype(dtype)[None]
        elif self.cfg.positions == "learned":
            x_BLD += self.position[tokens.position_BL].astype(dtype)
        if not self.cfg.has_segments:
            return x_BLD
        if self.cfg.num_segments > 2:
            return x_BLD + self.segment.astype(dtype)[segments_BL]
        # Two rows: a select is cheaper than a gather, and so is its gradient.
        segment = self.segment.astype(dtype)[:, None, None, :]
        return x_BLD + jnp.where(segments_BL[..., None] == 1, segment[1], segment[0])


class Encoder(nn.Module):
    """The encoder of `cfg.arch`; its parameters are the scale-invariant ones.

    A causal encoder can cache keys and values in the collection "cache" to encode a sequence
    incrementally: see `Attention`.

    Example:
      >>> encoder = Encoder(cfg)
      >>> x_BLD, dead_N = encoder.apply({"params": params}, tokens_BL, segments_BL, mask_BL)
    """

    cfg: ModelConfig

    def setup(self):
        c = self.cfg
        self.embed = Embedding(c)
        if ARCHS[c.arch].has_embed_norm:
            self.embed_norm = AffineNorm(c.norm_eps, relative=c.is_sibert)
        if c.is_sibert:
            self.stem = nn.Dense(c.width, False, c.compute_dtype, kernel_init=square_init(c))
        if ARCHS[c.arch].is_prenorm:
            self.final_norm = AffineNorm(c.norm_eps, relative=False)
        self.dropout = nn.Dropout(c.dropout)
        self.layers = LayerStack(c, LAYERS[c.arch])

    def token_table(self) -> jax.Array:
        """The token embeddings (V, D), float32, for a head that shares them."""
        return self.embed.token

    def __call__(
        self,
        tokens_BL: jax.Array,
        segments_BL: jax.Array,
        mask_BL: jax.Array,
        *,
        deterministic: bool = True,
        place: jax.Array | int = 0,
        documents_BL: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Encodes a batch of token sequences.

        Args:
          tokens_BL: int, ids in [0, vocab_size).
          segments_BL: int, ids in [0, num_segments); ignored by a model without a segment table.
          mask_BL: bool, False on padding; with a cache (B, M), over all cached tokens.
          deterministic: whether to disable dropout, which otherwise needs the "dropout" rng.
          place: int32, position of the first token; above 0 only with a cache of the earlier
            tokens.
          documents_BL: int32 in [0, L), nondecreasing along a row, for several documents per row: a
            token attends only to its own document, and positions count from the document's start.
            None: one document per row.

        Returns:
          x_BLD in the compute dtype, and dead_N, int32: the number of dead attention rows (of valid
          queries, over all heads) of each layer.
        """
        position_BL = positions(tokens_BL.shape[1], place, documents_BL)
        tokens = Tokens(mask_BL[:, None, None, :], position_BL, place, documents_BL)
        x_BLD = self.embed(tokens_BL, segments_BL, tokens)
        if ARCHS[self.cfg.arch].has_embed_norm:
            x_BLD = self.embed_norm(x_BLD)
        x_BLD = self.dropout(x_BLD, deterministic=deterministic)
        if self.cfg.is_sibert:
            x_BLD = self.stem(x_BLD)
        if ARCHS[self.cfg.arch].is_sandwich:
            x_BLD = normalize(x_BLD, self.cfg.norm_eps)
        x_BLD, dead_N = self.layers(x_BLD, tokens, deterministic)
        if self.cfg.is_sibert:
            x_BLD = normalize(x_BLD, self.cfg.norm_eps)
        elif ARCHS[self.cfg.arch].is_prenorm:
            x_BLD = self.final_norm(x_BLD)
        return x_BLD, dead_N


def positions(seq_len: int, place: jax.Array | int, documents_BL: jax.Array | None) -> jax.Array:
    """Positions from the start of each token's document, (B, L) int32; (1, L) without documents."""
    index_1L = jnp.arange(seq_len, dtype=jnp.int32)[None]
    if documents_BL is None:
        return place + index_1L
    starts_BL = jnp.diff(documents_BL, axis=1, prepend=-1) != 0
    return index_1L - jax.lax.cummax(jnp.where(starts_BL, index_1L, 0), axis=1)


class LayerStack(nn.Module):
    """`cfg.depth` layers, scanned over stacked parameters (leading axis N) or unrolled."""

    cfg: ModelConfig
    layer: type[nn.Module]

    @nn.compact
    def __call__(self, x_BLD: jax.Array, tokens: Tokens, deterministic: bool):
        c = self.cfg
        mask_B11M = tokens.mask_B1LM
        num_queries, num_keys = x_BLD.shape[1], mask_B11M.shape[3]
        mask_B11L = jax.lax.dynamic_slice_in_dim(mask_B11M, tokens.place, num_queries, axis=3)
        mask_B1L1 = jnp.swapaxes(mask_B11L, 2, 3)
        place_L1 = tokens.place + jnp.arange(num_queries, dtype=jnp.int32)[:, None]
        distance_LM = jnp.abs(place_L1 - jnp.arange(num_keys, dtype=jnp.int32)[None])
        reach_N = jnp.asarray(c.reach, jnp.int32)

        def run(layer: nn.Module, x_BLD: jax.Array, reach: jax.Array):
            seen = tokens
            if c.attention_window:
                near_11LM = (distance_LM <= reach)[None, None]
                seen = tokens._replace(mask_B1LM=mask_B11M & near_11LM)
            x_BLD, dead_BHL1 = layer(constrain(x_BLD, "BLD"), seen, deterministic)
            return constrain(x_BLD, "BLD"), jnp.sum(dead_BHL1 & mask_B1L1, dtype=jnp.int32)

        if c.remat:
            # Inside a scan XLA cannot eliminate the recomputation, so CSE need not be prevented.
            policy = getattr(jax.checkpoint_policies, c.remat_policy)
            run = nn.remat(run, prevent_cse=not c.scan_layers, policy=policy)
        if c.scan_layers:
            stack = nn.scan(
                run,
                variable_axes={"params": 0, "cache": 0},
                split_rngs={"params": True, "dropout": True},
                length=c.depth,
            )
            return stack(self.layer(c, name="layer"), x_BLD, reach_N)
        dead = []
        for i in range(c.depth):
            x_BLD, num_dead = run(self.layer(c, name=f"layer_{i}"), x_BLD, reach_N[i])
            dead.append(num_dead)
        return x_BLD, jnp.stack(dead)


def encoder_flops_per_token(cfg: ModelConfig, seq_len: int) -> float:
    """Floating-point operations of the encoder per token, forward and backward.

    A multiply-add counts as 2: 6 per matrix weight (2 forward, 4 backward), plus 12·L·D per layer
    for the two attention products (scores and weighted values, 2·L·D each in the forward pass).
    """
    layer = 4 * cfg.width**2 + 2 * cfg.width * cfg.ffn_width
    stem = cfg.width**2 if cfg.is_sibert else 0
    return 6.0 * (cfg.depth * layer + stem) + 12.0 * cfg.depth * seq_len * cfg.width
