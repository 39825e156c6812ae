"""A convolutional net in plain JAX: every convolution is normalized, hence scale invariant.

The images hold a noisy grating; the class is its orientation. Run: python this_file.py.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sibert_jax.optim import partition_by_invariance, scale_invariant_sgd

CLASSES, SIZE, CHANNELS = 8, 16, (1, 16, 16, 16)
BLOCKS = {"convolutions": {f"conv{n}": f"conv{n}" for n in range(3)}}  # each has its own norm


def gratings(size: int, seed: int) -> tuple[jax.Array, jax.Array]:
    """Return images (size, 16, 16, 1) and their orientation, one of eight."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, CLASSES, size)
    angle = np.pi * label / CLASSES
    grid = np.arange(SIZE)
    along = np.cos(angle)[:, None, None] * grid[:, None] + np.sin(angle)[:, None, None] * grid
    image = np.sin(1.2 * along + rng.uniform(0, 2 * np.pi, (size, 1, 1)))
    image += 0.7 * rng.normal(size=image.shape)
    return jnp.asarray(image[..., None], jnp.float32), jnp.asarray(label, jnp.int32)


def init(key: jax.Array) -> dict:
    """Return the convolutions and the linear head."""
    convolutions = {}
    for n, (i, o) in enumerate(itertools.pairwise(CHANNELS)):
        convolutions[f"conv{n}"] = 0.1 * jax.random.normal(jax.random.fold_in(key, n), (3, 3, i, o))
    w = 0.1 * jax.random.normal(jax.random.fold_in(key, 99), (CHANNELS[-1], CLASSES))
    return {"convolutions": convolutions, "head": {"w": w, "b": jnp.zeros(CLASSES)}}


def apply(params: dict, image: jax.Array) -> jax.Array:
    """Return the logits. Normalizing after each convolution removes the scale of its kernel."""
    x = image
    for kernel in params["convolutions"].values():
        axes = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=axes)
        x = x - jnp.mean(x, axis=(1, 2, 3), keepdims=True)
        x = jax.nn.relu(x * jax.lax.rsqrt(jnp.mean(x * x, axis=(1, 2, 3), keepdims=True)))
    return jnp.mean(x, axis=(1, 2)) @ params["head"]["w"] + params["head"]["b"]


def main(num_steps: int = 300) -> float:
    """Train and return the accuracy on fresh images."""
    params = init(jax.random.key(0))
    schedule = optax.cosine_decay_schedule(0.3, num_steps)
    # Before: tx = optax.adamw(schedule)
    encoder_tx, head_tx = scale_invariant_sgd(schedule, 0.05, blocks=BLOCKS), optax.adamw(1e-2)
    tx = partition_by_invariance(encoder_tx, head_tx, {"convolutions": True, "head": False})
    state = tx.init(params)

    @jax.jit
    def step(params, state, image, label):
        def loss_fn(params):
            logits = apply(params, image)
            return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    for t in range(num_steps):
        params, state, loss = step(params, state, *gratings(64, seed=t))
        if t % 50 == 0:
            print(f"step {t:4d}  loss {float(loss):.3f}", flush=True)
    image, label = gratings(1000, seed=10**6)
    correct = jnp.argmax(apply(params, image), axis=1) == label
    return float(jnp.mean(correct.astype(jnp.float32)))


if __name__ == "__main__":
    print(f"accuracy {main():.3f}")
