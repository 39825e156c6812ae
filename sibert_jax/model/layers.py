"""One encoder layer per architecture. Comments give degrees (arXiv 2202.00980, Table 2).

Each layer maps (x_BLD, `Tokens`, deterministic) to (x_BLD, dead rows (B, H, L, 1)).
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from sibert_jax.model.attention import Attention, Tokens
from sibert_jax.model.config import ModelConfig
from sibert_jax.model.constraints import constrain
from sibert_jax.model.norm import AffineNorm, normalize


def square_init(c: ModelConfig) -> nn.initializers.Initializer:
    """The initializer of a (D, D) kernel between two norms: the stem or a head transform."""
    if not c.identity_init:
        return nn.initializers.truncated_normal(c.init_std)
    # std·√D·I has the Frobenius norm of a matrix whose entries have that standard deviation.
    return lambda key, shape, dtype: c.init_std * c.width**0.5 * jnp.eye(*shape, dtype=dtype)


ACTIVATIONS = {
    "relu": nn.relu,
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_new": functools.partial(nn.gelu, approximate=True),  # GPT-2's tanh approximation
}


class FeedForward(nn.Module):
    """Linear, bias, activation, linear. With ReLU and no output bias: degree 0 -> 2."""

    cfg: ModelConfig
    activation: str  # a key of ACTIVATIONS
    out_bias: bool

    @nn.compact
    def __call__(self, x_BLD: jax.Array) -> jax.Array:
        c, init = self.cfg, nn.initializers.truncated_normal(self.cfg.init_std)
        down_init = nn.initializers.truncated_normal(c.output_std)
        # As (B·L, D) matrices the gradient of a kernel is one plain matrix product.
        x_TD = x_BLD.reshape(-1, c.width)
        h_TF = nn.Dense(c.ffn_width, dtype=c.compute_dtype, kernel_init=init, name="up")(x_TD)
        h_TF = constrain(h_TF, "TF")
        h_TF = ACTIVATIONS[self.activation](h_TF)
        y_TD = nn.Dense(
            c.width, self.out_bias, dtype=c.compute_dtype, kernel_init=down_init, name="down"
        )(h_TF)
        return y_TD.reshape(x_BLD.shape)


class SibertLayer(nn.Module):
    """PreNorm without affine, ReLU attention, ReLU feed-forward: degree 2 -> 2."""

    cfg: ModelConfig
    attention: str = "relu"

    @nn.compact
    def __call__(self, x_BLD: jax.Array, tokens: Tokens, deterministic: bool):
        c, scale = self.cfg, jnp.asarray(self.cfg.branch_scale, x_BLD.dtype)
        dropout = nn.Dropout(c.dropout, deterministic=deterministic)
        u_BLD = normalize(x_BLD, c.norm_eps)  # 0
        y_BLD, dead_BHL1 = Attention(
            c, self.attention, c.qkv_bias, out_bias=False, name="attention"
        )(u_BLD, tokens, deterministic=deterministic)
        x_BLD = x_BLD + scale * dropout(y_BLD)  # 2 + 2
        u_BLD = normalize(x_BLD, c.norm_eps)  # 0
        y_BLD = FeedForward(c, "relu", out_bias=False, name="ffn")(u_BLD)
        return x_BLD + scale * dropout(y_BLD), dead_BHL1  # 2 + 2


class SandwichLayer(nn.Module):
    """Each branch normalized before and after: residual stream of degree 0, k = 1/√(2N)."""

    cfg: ModelConfig
    attention: str = "relu"

    @nn.compact
    def __call__(self, x_BLD: jax.Array, tokens: Tokens, deterministic: bool):
        c = self.cfg
        scale = jnp.asarray((2 * c.depth) ** -0.5, x_BLD.dtype)
        dropout = nn.Dropout(c.dropout, deterministic=deterministic)
        y_BLD, dead_BHL1 = Attention(
            c, self.attention, c.qkv_bias, out_bias=False, name="attention"
        )(normalize(x_BLD, c.norm_eps), tokens, deterministic=deterministic)
        x_BLD = x_BLD + scale * dropout(normalize(y_BLD, c.norm_eps))  # 0 + 0
        y_BLD = FeedForward(c, "relu", out_bias=False, name="ffn")(normalize(x_BLD, c.norm_eps))
        return x_BLD + scale * dropout(normalize(y_BLD, c.norm_eps)), dead_BHL1  # 0 + 0


class BertLayer(nn.Module):
    """Devlin et al. 2019: PostNorm with affine, softmax, GELU, biases everywhere."""

    cfg: ModelConfig

    @nn.compact
    def __call__(self, x_BLD: jax.Array, tokens: Tokens, deterministic: bool):
        c = self.cfg
        dropout = nn.Dropout(c.dropout, deterministic=deterministic)
        y_BLD, dead_BHL1 = Attention(c, "softmax", qkv_bias=True, out_bias=True, name="attention")(
            x_BLD, tokens, deterministic=deterministic
        )
        norm = AffineNorm(c.norm_eps, relative=False, name="attention_norm")
        x_BLD = norm(x_BLD + dropout(y_BLD))
        y_BLD = FeedForward(c, "gelu", out_bias=True, name="ffn")(x_BLD)
        norm = AffineNorm(c.norm_eps, relative=False, name="ffn_norm")
        return norm(x_BLD + dropout(y_BLD)), dead_BHL1


class PreNormBertLayer(nn.Module):
    """BERT's parts in GPT-2's order: affine norms before the branches, not on the stream."""

    cfg: ModelConfig
    activation: str = "gelu"

    @nn.compact
    def __call__(self, x_BLD: jax.Array, tokens: Tokens, deterministic: bool):
        c = self.cfg
        dropout = nn.Dropout(c.dropout, deterministic=deterministic)
        norm = AffineNorm(c.norm_eps, relative=False, name="attention_norm")
        y_BLD, dead_BHL1 = Attention(c, "softmax", qkv_bias=True, out_bias=True, name="attention")(
            norm(x_BLD), tokens, deterministic=deterministic
        )
        x_BLD = x_BLD + dropout(y_BLD)
        norm = AffineNorm(c.norm_eps, relative=False, name="ffn_norm")
        y_BLD = FeedForward(c, self.activation, out_bias=True, name="ffn")(norm(x_BLD))
        return x_BLD + dropout(y_BLD), dead_BHL1


LAYERS = {
    "sibert": SibertLayer,
    "sibert_qk_norm": functools.partial(SibertLayer, attention="qk_norm"),
    "sibert_sandwich": SandwichLayer,
    "bert": BertLayer,
    "bert_prenorm": PreNormBertLayer,
    "reparametrized": BertLayer,
    "sigpt": SandwichLayer,
    "sigpt_qk_norm": functools.partial(SandwichLayer, attention="qk_norm"),
    "gpt": functools.partial(PreNormBertLayer, activation="gelu_new"),
}
