"""Sizes and options of an encoder, and the meaning of the shape letters.

B batch · L sequence (queries) · M sequence (keys) · D width of the residual stream · H attention
heads · K width of one head (D = H·K) · F feed-forward width · N layers · V vocabulary · P masked
positions per example · T tokens of a batch as rows of a matrix (B·L or B·P).
"""

import dataclasses
import math
from typing import NamedTuple

import jax.numpy as jnp

from sibert_jax.errors import ConfigError
from sibert_jax.keys import check, key, named
from sibert_jax.model.relu_attention import IMPLS


class Arch(NamedTuple):
    """An architecture; its layer is defined in model/layers.py.

    Attributes:
      is_scale_invariant: whether the encoder is invariant to the joint scale of its parameters.
      is_sibert: SIBERT's stem, PreNorm without affine and relative guards; otherwise BERT's
        embeddings.
      has_relu_attention: ReLU attention; otherwise softmax.
      unused: keys of `model` that the architecture ignores.
      is_causal: a token attends to itself and to earlier ones, and there is no segment table.
      is_sandwich: SIBERT only: branches are normalized before and after.
      is_prenorm: others only: a norm with gain and bias precedes each branch and follows the last
        layer.
      has_embed_norm: a norm with gain and bias follows the embeddings.
      norm_eps: the default of `model.norm_eps`.
    """

    is_scale_invariant: bool
    is_sibert: bool
    has_relu_attention: bool
    unused: tuple[str, ...] = ()
    is_causal: bool = False
    is_sandwich: bool = False
    is_prenorm: bool = False
    has_embed_norm: bool = True
    norm_eps: float = 1e-6


# Positional arguments: is_scale_invariant, is_sibert, has_relu_attention.
ARCHS = {
    "sibert": Arch(True, True, True),
    "sibert_qk_norm": Arch(True, True, False),
    "sibert_sandwich": Arch(True, True, True, unused=("branch_scaling",), is_sandwich=True),
    "bert": Arch(False, False, False, unused=("branch_scaling", "qkv_bias"), norm_eps=1e-12),
    "bert_prenorm": Arch(
        False, False, False, unused=("branch_scaling", "qkv_bias"), is_prenorm=True,
        norm_eps=1e-12,
    ),
    "reparametrized": Arch(True, False, False, unused=("branch_scaling", "qkv_bias")),
    "sigpt": Arch(
        True, True, True, unused=("branch_scaling", "num_segments"), is_causal=True,
        is_sandwich=True,
    ),
    "sigpt_qk_norm": Arch(
        True, True, False, unused=("branch_scaling", "num_segments"), is_causal=True,
        is_sandwich=True,
    ),
    "gpt": Arch(
        False, False, False, unused=("branch_scaling", "qkv_bias", "num_segments"),
        is_causal=True, is_prenorm=True, has_embed_norm=False, norm_eps=1e-5,
    ),
}  # fmt: skip
# Names in `jax.checkpoint_policies`: save nothing, products with weights, all products.
REMAT_POLICIES = ("nothing_saveable", "dots_with_no_batch_dims_saveable", "dots_saveable")

# Compatibility of a checkpoint with another config. SHAPE_KEYS determine the shapes of the
# parameters and must agree; FUNCTION_KEYS change only the function computed from the parameters.
# The other keys control initialization and computation.
SHAPE_KEYS = (
    "arch", "vocab_size", "max_len", "positions", "num_segments", "width", "depth", "num_heads",
    "ffn_width", "qkv_bias", "scan_layers",
)  # fmt: skip
FUNCTION_KEYS = (
    "attention_window", "global_attention_every", "branch_scaling", "norm_eps", "dropout",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Keys under `model`."""

    arch: str = key("sibert", "architecture", choices=tuple(ARCHS), inherited=True)
    vocab_size: int = key(
        8192, "vocabulary size, the number of rows of the token table (V)", low=1, inherited=True
    )
    max_len: int = key(128, "maximum sequence length in tokens", low=1, inherited=True)
    positions: str = key(
        "learned", "position encoding; learned: a table of embeddings; rotary: rotation of "
        "queries and keys", choices=("learned", "rotary"), inherited=True,
    )  # fmt: skip
    num_segments: int = key(
        2, "number of segment embeddings; 2: for sentence pairs; 1: none; causal models never "
        "have any", low=1, inherited=True,
    )  # fmt: skip
    width: int = key(
        128, "features per token (D); must be a multiple of num_heads", low=1, inherited=True
    )
    depth: int = key(2, "number of layers (N)", low=1, inherited=True)
    num_heads: int = key(2, "attention heads per layer (H)", low=1, inherited=True)
    ffn_width: int = key(
        512, "hidden features of the feed-forward branch (F)", low=1, inherited=True
    )
    qkv_bias: bool = key(
        False, "add biases to queries, keys and values; SIBERT stays scale invariant; BERT and "
        "GPT-2 always have them", inherited=True,
    )  # fmt: skip
    attention_window: int = key(
        0, "how many tokens to each side a token attends to (causal models: earlier tokens only); "
        "0: all", low=0, inherited=True,
    )  # fmt: skip
    global_attention_every: int = key(
        0, "every n-th layer ignores attention_window and attends to all tokens; 0: no layer does",
        low=0, inherited=True,
    )  # fmt: skip
    branch_scaling: str = key(
        "depth", "scale of residual branches; none: x + f(x), as in the paper; depth: x + "
        "f(x)/√(2·depth)", choices=("none", "depth"), inherited=True,
    )  # fmt: skip
    norm_eps: float = key(
        ARCHS["sibert"].norm_eps, "epsilon of the norms; SIBERT: relative, var + eps·mean(x²); "
        "BERT (default 1e-12) and GPT-2 (1e-5): absolute, var + eps", low=0, inherited=True,
    )  # fmt: skip
    dropout: float = key(
        0.0, "dropout rate of stem, attention weights and branches", low=0, below=1
    )
    init_std: float = key(
        0.02, "standard deviation of initial weights, a normal truncated at ±2 standard deviations",
        above=0, below=math.inf,
    )  # fmt: skip
    identity_init: bool = key(
        False, "initialize stem and head transform as the identity, scaled to the norm that "
        "init_std gives",
    )  # fmt: skip
    dtype: str = key(
        # float16 underflows on the residual stream of degree 2
        "float32", "dtype of activations and matrix products; parameters are always float32",
        choices=("float32", "bfloat16"),
    )  # fmt: skip
    scan_layers: bool = key(
        True, "stack the parameters of all layers and scan over them, so that one layer is "
        "compiled", inherited=True,
    )  # fmt: skip
    remat: bool = key(
        False, "save memory by recomputing layers in the backward pass", may_change=True
    )
    remat_policy: str = key(
        "nothing_saveable", "what remat stores besides each layer's input: nothing, products with "
        "weights, or all matrix products", choices=REMAT_POLICIES,
    )  # fmt: skip
    attention_impl: str = key(
        "auto", "implementation of ReLU attention; results differ only by rounding; see "
        "docs/attention.md", choices=IMPLS, may_change=True,
    )  # fmt: skip

    def __post_init__(self):
        check("model", self)
        if self.width % self.num_heads:
            raise ConfigError(
                f"model.width={self.width} is not divisible by model.num_heads={self.num_heads}; "
                "each head needs the same whole number of features."
            )
        if self.positions == "rotary" and self.head_width % 2:
            raise ConfigError(
                f'model.positions="rotary" turns pairs of features, and model.width={self.width} '
                f"over model.num_heads={self.num_heads} gives {self.head_width} features a head, "
                'an odd number; change one of them, or set model.positions="learned".'
            )
        if self.global_attention_every and not self.attention_window:
            raise ConfigError(
                f"model.global_attention_every={self.global_attention_every} has no effect with "
                "model.attention_window=0, where every layer attends to all tokens; set it to 0, "
                "or set model.attention_window to a number of tokens."
            )
        keeps_no_weights = self.attention_impl in ("blockwise", "pallas")
        if keeps_no_weights and not ARCHS[self.arch].has_relu_attention:
            raise ConfigError(
                f'model.attention_impl="{self.attention_impl}" is for ReLU attention, but '
                f'model.arch={self.arch!r} uses softmax; set the former to "auto".'
            )
        if keeps_no_weights and self.attention_window:
            raise ConfigError(
                f'model.attention_impl="{self.attention_impl}" does not support windows, but '
                f'model.attention_window={self.attention_window}; set the former to "auto" or the '
                "latter to 0."
            )
        if keeps_no_weights and self.dropout > 0:
            raise ConfigError(
                f'model.attention_impl="{self.attention_impl}" does not keep the attention '
                f"weights, to which model.dropout={self.dropout} applies; set the former to "
                '"auto" or the latter to 0.'
            )

    @property
    def head_width(self) -> int:
        """K, the width of one attention head."""
        return self.width // self.num_heads

    @property
    def compute_dtype(self) -> jnp.dtype:
        """The dtype of matrix products; parameters and statistics are always float32."""
        return jnp.dtype(self.dtype)

    @property
    def branch_scale(self) -> float:
        """The constant factor on each residual branch; a constant does not change the degree."""
        return (2 * self.depth) ** -0.5 if self.branch_scaling == "depth" else 1.0

    @property
    def reach(self) -> tuple[int, ...]:
        """The largest distance, in tokens, that each layer attends over."""
        window, every = self.attention_window or self.max_len, self.global_attention_every
        return tuple(
            self.max_len if every and i % every == 0 else window for i in range(1, self.depth + 1)
        )

    @property
    def is_scale_invariant(self) -> bool:
        """Whether f(c·encoder parameters) = f(encoder parameters) for every c > 0."""
        return ARCHS[self.arch].is_scale_invariant

    @property
    def is_sibert(self) -> bool:
        """Whether stem, norms and guards are SIBERT's rather than BERT's."""
        return ARCHS[self.arch].is_sibert

    @property
    def is_causal(self) -> bool:
        """Whether a token attends to itself and to earlier ones only."""
        return ARCHS[self.arch].is_causal

    @property
    def has_segments(self) -> bool:
        """Whether there is a segment table."""
        return self.num_segments > 1 and not self.is_causal

    @property
    def output_std(self) -> float:
        """Initial standard deviation of a branch's last matrix; in GPT-2 divided by √(2·depth)."""
        return self.init_std * (2 * self.depth) ** -0.5 if self.arch == "gpt" else self.init_std

    @property
    def function_keys(self) -> tuple[str, ...]:
        """The FUNCTION_KEYS that this architecture uses."""
        return tuple(key for key in FUNCTION_KEYS if key not in ARCHS[self.arch].unused)


# Keys that, if None, take the value of the encoder that training starts from.
INHERITED_KEYS = tuple(named(ModelConfig, "inherited"))


def fresh_encoder(arch: str) -> ModelConfig:
    """The default config of an architecture, for training from scratch."""
    return dataclasses.replace(ModelConfig(arch=arch), norm_eps=ARCHS[arch].norm_eps)
