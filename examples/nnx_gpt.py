"""A character-level GPT in Flax NNX on Python's argparse.py. Run: python this_file.py."""

import argparse
import inspect

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from sibert_jax.optim import make_schedule, sgd_sai

WIDTH, HEADS, DEPTH, LENGTH, BATCH = 64, 4, 2, 32, 16


class Block(nnx.Module):
    """Attention and a feed-forward net, each after a LayerNorm."""

    def __init__(self, rngs: nnx.Rngs):
        self.norm1, self.norm2 = (nnx.LayerNorm(WIDTH, rngs=rngs) for _ in range(2))
        self.attention = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, rngs=rngs)
        self.up = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
        self.down = nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x):
        mask = nnx.make_causal_mask(jnp.ones(x.shape[:2]))
        x = x + self.attention(self.norm1(x), mask=mask)
        return x + self.down(nnx.gelu(self.up(self.norm2(x))))


class GPT(nnx.Module):
    """Embeddings, blocks, a linear head."""

    def __init__(self, vocab: int, rngs: nnx.Rngs):
        self.tokens = nnx.Embed(vocab, WIDTH, rngs=rngs)
        self.positions = nnx.Embed(LENGTH, WIDTH, rngs=rngs)
        self.blocks = nnx.List([Block(rngs) for _ in range(DEPTH)])
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, vocab, rngs=rngs)

    def __call__(self, tokens):
        x = self.tokens(tokens) + self.positions(jnp.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


@nnx.jit
def train_step(model, optimizer, tokens):
    """Return the mean cross-entropy of the next character, and move the model."""

    def loss_fn(model):
        logits = model(tokens[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads)
    return loss


def main(num_steps: int = 200) -> tuple[float, float]:
    """Train and return the first and the last loss."""
    text = np.frombuffer(inspect.getsource(argparse).encode("ascii", "replace"), np.uint8)
    vocab, text = np.unique(text, return_inverse=True)
    model = GPT(len(vocab), nnx.Rngs(0))
    schedule = make_schedule("cosine", peak_value=1e-2, num_steps=num_steps, warmup_steps=10)
    # Before: optimizer = nnx.Optimizer(model, optax.adamw(schedule), wrt=nnx.Param)
    optimizer = nnx.Optimizer(model, sgd_sai(schedule), wrt=nnx.Param)
    rng, losses = np.random.default_rng(0), []
    for step in range(num_steps):
        starts = rng.integers(0, len(text) - LENGTH, BATCH)
        tokens = jnp.asarray(text[starts[:, None] + np.arange(LENGTH + 1)[None]], jnp.int32)
        losses.append(float(train_step(model, optimizer, tokens)))
        if step % 50 == 0:
            print(f"step {step:4d}  loss {losses[-1]:.3f}", flush=True)
    return losses[0], float(np.mean(losses[-10:]))


if __name__ == "__main__":
    print("first and last loss: {:.3f} {:.3f}".format(*main()))
