"""ReLU attention by the sums of its definition, in float64, and cases to compare with it."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np

from sibert_jax.model import relu_attention
from sibert_jax.train import sharding


def inputs(seed, batch, length, heads, width, num_segments=1, share_of_padding=0.2):
    """q, k, v, the output's cotangent, mask_BL and segments_BL, with dead rows and dead keys."""
    rng = np.random.default_rng(seed)
    q, k, v, d_out = rng.standard_normal((4, batch, length, heads, width)).astype(np.float32)
    q[:, ::3] = -np.abs(q[:, ::3])  # every third row has no positive score with keys > 0
    k[..., 1:, :] = np.abs(k[..., 1:, :])
    k[0] = np.abs(k[0])
    valid = rng.random((batch, length)) >= share_of_padding
    valid[-1] = False  # nothing but padding
    segments = np.sort(rng.integers(0, num_segments, (batch, length)), axis=1).astype(np.int32)
    return q, k, v, d_out, valid, segments


def reference(q, k, v, d_out, valid, segments, causal=False):
    """out, dead, dq, dk, dv by the sums of the definition, row by row, in float64."""
    q, k, v, d_out = (x.astype(np.float64) for x in (q, k, v, d_out))
    out, dq, dk, dv = (np.zeros_like(q) for _ in range(4))
    batch, length, heads, _ = q.shape
    dead = np.zeros((batch, heads, length, 1), bool)
    for b, h, i in itertools.product(range(batch), range(heads), range(length)):
        seen = np.arange(length) <= i if causal else np.ones(length, bool)
        keys = np.flatnonzero(valid[b] & seen & (segments[b] == segments[b, i]))
        scores = k[b, keys, h] @ q[b, i, h]
        positive = np.maximum(scores, 0)
        total = positive.sum()
        dead[b, h, i] = not total > 0
        if total > 0:
            weights = positive / total
            d_weights = v[b, keys, h] @ d_out[b, i, h]
            # The Jacobian of r -> r / Σr.
            d_scores = (d_weights - weights @ d_weights) / total * (scores > 0)
            dq[b, i, h] = d_scores @ k[b, keys, h]
            dk[b, keys, h] += np.outer(d_scores, q[b, i, h])
        else:
            weights = np.full(len(keys), 1 / max(len(keys), 1))
        out[b, i, h] = weights @ v[b, keys, h]
        dv[b, keys, h] += np.outer(weights, d_out[b, i, h])
    return out, dead, dq, dk, dv


@functools.partial(jax.jit, static_argnums=(0, 7))
def computed(impl, q, k, v, d_out, valid, segments, causal=False):
    def attend(q, k, v):
        return relu_attention(q, k, v, valid, segments, causal=causal, impl=impl)

    out, back, dead = jax.vjp(attend, q, k, v, has_aux=True)
    return out, dead, *back(d_out)


def in_float64(impl, case, causal=False):
    """`computed` without float32's rounding, which a row sum near 0 makes large."""
    with jax.enable_x64(True):
        return computed(impl, *(x.astype(np.float64) for x in case[:4]), *case[4:], causal)


def assert_close(found, wanted, tolerance):
    for name, a, b in zip(("out", "dead", "dq", "dk", "dv"), found, wanted, strict=True):
        scale = max(np.abs(b).max(), 1.0)  # a row with one valid key has a gradient of 0
        error = np.abs(np.asarray(a, np.float64) - b).max() / scale
        assert error <= tolerance, f"{name}: {error}"


def assert_within_rounding(impl, dtype, share_of_padding, seed):
    """float32 and bfloat16 inputs give outputs and gradients of their dtype, near the formula."""
    *floats, valid, segments = inputs(seed, 3, 150, 2, 8, 2, share_of_padding)
    floats = [jnp.asarray(x, dtype) for x in floats]
    wanted = reference(*(np.asarray(x, np.float32) for x in floats), valid, segments)
    found = computed(impl, *floats, valid, segments)
    assert all(x.dtype == dtype for x in (found[0], *found[2:]))
    assert_close(found, wanted, 5e-6 if dtype == jnp.float32 else 2e-2)


def assert_nothing_is_gathered(impl, mesh, batch_axes):
    """Split over batch and heads, each device computes its own, and the result is the formula's."""
    *floats, valid, segments = case = inputs(8, 4, 40, 2, 8, 2)
    heads, rows = (
        jax.NamedSharding(mesh, jax.P(batch_axes, *axes)) for axes in ((None, "tensor"), ())
    )
    floats = [jax.device_put(x, heads) for x in floats]
    valid, segments = (jax.device_put(x, rows) for x in (valid, segments))
    fn = sharding.on_mesh(functools.partial(computed.__wrapped__, impl), mesh)
    compiled = jax.jit(fn).lower(*floats, valid, segments).compile()
    communication = r"all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
    assert not re.findall(communication, compiled.as_text())
    found = compiled(*floats, valid, segments)
    assert all(x.sharding.is_equivalent_to(heads, 4) for x in (found[0], *found[2:]))
    assert_close(found, reference(*case), 5e-6)


def assert_no_number_is_no_dead_row(impl):
    """A row with a NaN among its scores is NaN, and not dead."""
    q, k, v, d_out, valid, _ = inputs(6, 1, 9, 1, 4)
    q[0, 1, 0, 0] = np.nan
    out, dead, *_ = computed(impl, q, k, v, d_out, valid | True, None)
    assert np.isnan(out[0, 1]).all()
    assert not dead[0, 0, 1, 0]


def rotated(x_BLHK, position_BL):
    """`apply_rotary_pos_emb` of GPT-NeoX and LLaMA, in float64."""
    width = x_BLHK.shape[-1]
    inverse = 1.0 / 10_000 ** (np.arange(0, width, 2) / width)
    angle = position_BL[..., None] * inverse
    both = np.concatenate([angle, angle], axis=-1)[:, :, None]
    first, second = x_BLHK[..., : width // 2], x_BLHK[..., width // 2 :]
    half_turned = np.concatenate([-second, first], axis=-1)
    return x_BLHK * np.cos(both) + half_turned * np.sin(both)
