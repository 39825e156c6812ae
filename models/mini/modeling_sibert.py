"""SIBERT's encoder in PyTorch, self-contained: needs torch and safetensors, nothing of sibert_jax.

    import torch
    from modeling_sibert import Sibert

    encoder = Sibert.from_directory(".")
    features = encoder(torch.tensor([[2, 57, 91, 3]]))  # (B, L) token ids -> (B, L, D)

Li et al., Robust Training of Neural Networks Using Scale Invariant Architectures, ICML 2022,
https://arxiv.org/abs/2202.00980. Multiply all parameters by any c > 0: the features stay the same.
"""

import json
import math
import pathlib

import torch
from safetensors.torch import load_file


class Sibert:
    """The encoder; `weights` maps names such as "encoder/layers/0/ffn/up/kernel" to tensors."""

    def __init__(self, config: dict, weights: dict[str, torch.Tensor]):
        self.config, self.weights = config, weights

    @classmethod
    def from_directory(cls, directory: str | pathlib.Path) -> "Sibert":
        """Reads config.json and model.safetensors."""
        directory = pathlib.Path(directory)
        config = json.loads((directory / "config.json").read_text())
        weights = load_file(directory / "model.safetensors")
        return cls(config, {name: tensor.float() for name, tensor in weights.items()})

    def __call__(
        self,
        tokens: torch.Tensor,
        segments: torch.Tensor | None = None,
        valid: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Encodes tokens.

        Args:
          tokens: (B, L) ids.
          segments: (B, L), 0 to num_segments − 1; None: all 0.
          valid: (B, L) bool, False on padding; None: all True.

        Returns:
          (B, L, D) features.
        """
        w, c = self.weights, self.config
        segments = torch.zeros_like(tokens) if segments is None else segments
        valid = torch.ones_like(tokens, dtype=torch.bool) if valid is None else valid
        x = w["encoder/embed/token"][tokens]
        if c["positions"] == "learned":
            x = x + w["encoder/embed/position"][: tokens.shape[1]]
        if c["num_segments"] > 1:
            x = x + w["encoder/embed/segment"][segments]
        x = self._norm(x) * w["encoder/embed_norm/scale"] + w["encoder/embed_norm/bias"]
        x = x @ w["encoder/stem/kernel"]
        sandwich = c["arch"] == "sibert_sandwich"
        scale = 1.0
        if sandwich or c["branch_scaling"] == "depth":
            scale = 1 / math.sqrt(2 * c["depth"])
        x = self._norm(x) if sandwich else x
        for i in range(c["depth"]):
            keys = self._keys(valid, i)
            for branch in (self._attention, self._feed_forward):
                y = branch(self._norm(x), f"encoder/layers/{i}", keys)
                x = x + scale * (self._norm(y) if sandwich else y)
        return self._norm(x)

    def _norm(self, x: torch.Tensor) -> torch.Tensor:
        """Layer normalization without parameters; the guard grows with x, as the variance does."""
        centred = x - x.mean(-1, keepdim=True)
        guarded = centred.square().mean(-1, keepdim=True)
        guarded = guarded + self.config["norm_eps"] * x.square().mean(-1, keepdim=True)
        return torch.where(guarded > 0, centred / guarded.clamp(min=1e-45).sqrt(), 0.0)

    def _keys(self, valid: torch.Tensor, layer: int) -> torch.Tensor:
        """Those that a query attends to: (B, 1, L or 1, L) bool."""
        window, every = self.config["attention_window"], self.config["global_attention_every"]
        keys = valid[:, None, None, :]
        if not window or (every and (layer + 1) % every == 0):
            return keys
        place = torch.arange(valid.shape[1], device=valid.device)
        return keys & ((place[:, None] - place).abs() <= window)

    def _attention(self, x: torch.Tensor, layer: str, keys: torch.Tensor) -> torch.Tensor:
        """Rows of ReLU(q·k) over their sum; without a positive score: the mean over the keys."""

        def project(name):
            y = torch.einsum("bld,dhk->bhlk", x, self.weights[f"{layer}/attention/{name}/kernel"])
            bias = f"{layer}/attention/{name}/bias"
            return y + self.weights[bias][:, None] if bias in self.weights else y

        q, k, v = project("query"), project("key"), project("value")
        qk_norm = self.config["arch"] == "sibert_qk_norm"
        if qk_norm:
            q, k = self._norm(q), self._norm(k)
        if self.config["positions"] == "rotary":
            q, k = self._rotate(q), self._rotate(k)
        if qk_norm:
            keys = keys | ~keys.any(-1, keepdim=True)
            logits = q @ k.mT / math.sqrt(q.shape[-1])
            weights = logits.masked_fill(~keys, -math.inf).softmax(-1)
        else:
            scores = (q @ k.mT).relu() * keys
            total = scores.sum(-1, keepdim=True)
            uniform = keys / keys.sum(-1, keepdim=True).clamp(min=1)
            weights = torch.where(total > 0, scores / total, uniform)
        out = self.weights[f"{layer}/attention/out/kernel"]
        return torch.einsum("bhlm,bhmk,hkd->bld", weights, v, out)

    def _rotate(self, x: torch.Tensor) -> torch.Tensor:
        """Turns each pair (x_i, x_{i+K/2}) by position·10000^(−2i/K): arXiv 2104.09864."""
        half = x.shape[-1] // 2
        rate = 10_000.0 ** (-torch.arange(half, device=x.device) / half)
        angle = torch.arange(x.shape[-2], device=x.device)[:, None] * rate
        a, b = x.split(half, dim=-1)
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)

    def _feed_forward(self, x: torch.Tensor, layer: str, keys: torch.Tensor) -> torch.Tensor:
        up = x @ self.weights[f"{layer}/ffn/up/kernel"] + self.weights[f"{layer}/ffn/up/bias"]
        return up.relu() @ self.weights[f"{layer}/ffn/down/kernel"]
