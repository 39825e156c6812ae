"""Sizes and switches of an encoder, and the key to every shape letter.

B batch · L sequence, as query · M sequence, as key · D width of the residual stream · H attention
heads · K width of one head (D = H·K) · F feed-forward width · N layers · V vocabulary ·
P masked positions of one example · T tokens of a batch as rows of a matrix (B·L, or B·P).
"""

import dataclasses

import jax.numpy as jnp

from sibert_jax.model.relu_attention import IMPLS

ARCHS = ("sibert", "sibert_qk_norm", "sibert_sandwich", "bert", "reparametrized")
# Names of `jax.checkpoint_policies`: nothing, products with weights, all products.
REMAT_POLICIES = ("nothing_saveable", "dots_with_no_batch_dims_saveable", "dots_saveable")
RELU_ARCHS = ("sibert", "sibert_sandwich")  # the others have softmax

# What an encoder shares with the one that it starts from. SHAPE_KEYS must agree, as the shapes of
# the parameters follow from them; FUNCTION_KEYS change only what is computed from these. The other
# keys say how to initialize and how to compute. An architecture has no use for its UNUSED_KEYS.
SHAPE_KEYS = (
    "arch", "vocab_size", "max_len", "num_segments", "width", "depth", "num_heads", "ffn_width",
    "qkv_bias", "scan_layers",
)  # fmt: skip
FUNCTION_KEYS = ("branch_scaling", "norm_eps", "dropout")
# What is taken from there where it is not given: dropout is a choice of the training.
INHERITED_KEYS = (*SHAPE_KEYS, "branch_scaling", "norm_eps")
UNUSED_KEYS = {
    "sibert": (),
    "sibert_qk_norm": (),
    "sibert_sandwich": ("branch_scaling",),
    "bert": ("branch_scaling", "qkv_bias"),
    "reparametrized": ("branch_scaling", "qkv_bias"),
}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Everything that shapes an encoder; a missing key is an error.

    Only the last two have defaults: earlier versions wrote configs without them, and they say how
    to compute, not what.
    """

    arch: str  # one of ARCHS
    vocab_size: int  # V
    max_len: int  # longest sequence, the rows of the position table
    num_segments: int  # 2: a segment table, for sentence pairs; 1: none; more: of imported models
    width: int  # D
    depth: int  # N
    num_heads: int  # H, divides D
    ffn_width: int  # F
    qkv_bias: bool  # biases on queries, keys and values; degree 1, so SIBERT stays invariant
    branch_scaling: str  # "none": x + f(x), the paper's; "depth": x + f(x)/√(2·depth)
    norm_eps: float  # SIBERT: relative, var + eps·mean(x²); BERT: absolute, var + eps
    dropout: float  # rate in [0, 1), on the stem, the attention weights and each branch
    init_std: float  # standard deviation before truncation at ±2
    dtype: str  # "float32" or "bfloat16": what matrix products compute in
    scan_layers: bool  # stack the layers' parameters (leading axis N) and scan: compiles once
    remat: bool  # recompute each layer in the backward pass
    attention_impl: str = "auto"  # one of IMPLS, of ReLU attention; changes rounding only
    remat_policy: str = "nothing_saveable"  # one of REMAT_POLICIES: what `remat` keeps of a layer

    def __post_init__(self):
        if self.arch not in ARCHS:
            raise ValueError(f"model.arch={self.arch!r} is unknown; choose one of {list(ARCHS)}.")
        sizes = ("vocab_size", "max_len", "width", "depth", "num_heads", "ffn_width")
        for name in (*sizes, "num_segments"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name}={getattr(self, name)} must be at least 1.")
        if self.width % self.num_heads:
            raise ValueError(
                f"model.width={self.width} does not divide by model.num_heads={self.num_heads}; "
                "each head needs the same whole number of features."
            )
        if self.branch_scaling not in ("none", "depth"):
            raise ValueError(
                f'model.branch_scaling={self.branch_scaling!r} is unknown; choose "none" (the '
                'paper\'s plain sum) or "depth" (1/√(2·depth)).'
            )
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(
                f'model.dtype={self.dtype!r} is not supported; choose "float32" or "bfloat16" '
                "(float16 underflows on the degree-2 residual stream)."
            )
        if self.attention_impl not in IMPLS:
            raise ValueError(
                f"model.attention_impl={self.attention_impl!r} is unknown; choose one of "
                f"{list(IMPLS)}."
            )
        if self.remat_policy not in REMAT_POLICIES:
            raise ValueError(
                f"model.remat_policy={self.remat_policy!r} is unknown; choose one of "
                f"{list(REMAT_POLICIES)}."
            )
        keeps_no_weights = self.attention_impl in ("blockwise", "pallas")
        if keeps_no_weights and self.arch not in RELU_ARCHS:
            raise ValueError(
                f'model.attention_impl="{self.attention_impl}" is for ReLU attention, and '
                f'model.arch={self.arch!r} has softmax; set it to "auto".'
            )
        if keeps_no_weights and self.dropout > 0:
            raise ValueError(
                f'model.attention_impl="{self.attention_impl}" keeps no attention weights that '
                f'model.dropout={self.dropout} could act on; set the one to "auto" or the other '
                "to 0."
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.dropout={self.dropout} must lie in [0, 1).")
        if self.norm_eps < 0 or self.init_std <= 0:
            raise ValueError(
                f"model.norm_eps={self.norm_eps} must be >= 0, model.init_std={self.init_std} > 0."
            )

    @property
    def head_width(self) -> int:
        """K."""
        return self.width // self.num_heads

    @property
    def compute_dtype(self) -> jnp.dtype:
        """The dtype of matrix products; parameters and statistics are float32 whatever it is."""
        return jnp.dtype(self.dtype)

    @property
    def branch_scale(self) -> float:
        """The constant on each residual branch: a constant has degree 0, so any is allowed."""
        return (2 * self.depth) ** -0.5 if self.branch_scaling == "depth" else 1.0

    @property
    def is_scale_invariant(self) -> bool:
        """Whether f(c·encoder parameters) = f(encoder parameters) for every c > 0."""
        return is_scale_invariant(self.arch)

    @property
    def function_keys(self) -> tuple[str, ...]:
        """Those of FUNCTION_KEYS that this architecture has a use for."""
        return tuple(key for key in FUNCTION_KEYS if key not in UNUSED_KEYS[self.arch])


def is_scale_invariant(arch: str) -> bool:
    """Whether an architecture's encoder is invariant to the scale of all its parameters."""
    return arch != "bert"
