"""A model of encoder and head as a function of its parameters."""

import flax.linen as nn
import jax

from sibert_jax.model import ModelConfig, reparametrize


def apply_model(
    model: nn.Module, cfg: ModelConfig, params, batch, dropout_key: jax.Array | None = None
):
    """What `model` returns for a batch; its encoder is that of `cfg`. No dropout without a key."""
    if cfg.arch == "reparametrized":
        params = {**params, "encoder": reparametrize(params["encoder"], cfg.init_std)}
    rngs = {} if dropout_key is None else {"dropout": dropout_key}
    return model.apply({"params": params}, batch, deterministic=dropout_key is None, rngs=rngs)
