"""The grids of groups against plain numpy, and the gradients through them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.interop.quantized import Form
from sibert_jax.quantize.rounding import Knobs, quantized, rounded

BITS = (2, 3, 4, 8)
SHAPE = (8, 5)


def weights(seed: int = 0) -> np.ndarray:
    """Groups of either sign, one of zeros, one without negative weights."""
    w = np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)
    w[:4, 0], w[:4, 1] = 0, np.abs(w[:4, 1])
    return w


def random_knobs(form: Form) -> Knobs:
    rng, shape = np.random.default_rng(1), form.grouped_shape
    draws = (rng.uniform(*ends) for ends in ((-0.5, 0.5, shape), *[(0.5, 1, shape[:2])] * 2))
    return Knobs(*(draw.astype(np.float32) for draw in draws))


def reference(w_J, v_J, alpha, beta, bits, symmetric):
    """Codes, scale and zero point of one group."""
    high, low = alpha * max(w_J.max(), 0), beta * min(w_J.min(), 0)
    if symmetric:
        farther = high if high >= -low else low
        scale, zero = -farther / 2 ** (bits - 1), 2 ** (bits - 1)
    else:
        scale = (high - low) / (2**bits - 1)
        zero = np.round(-low / scale) if scale else 0
    scale = scale or 1.0
    return np.clip(np.round(w_J / scale + v_J) + zero, 0, 2**bits - 1), scale, zero


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("tuned", [False, True])
@pytest.mark.parametrize("bits", BITS)
def test_codes_are_those_of_the_formula(bits, tuned, symmetric):
    form = Form(SHAPE, (0,), bits, 4, symmetric)
    w, knobs = weights(), random_knobs(form) if tuned else Knobs.nearest(form)
    found = quantized(w, form, knobs)
    for o in range(5):
        for g in range(2):
            v_J, alpha, beta = (np.float64(knob[o, g]) for knob in knobs)
            w_J = np.float64(w[4 * g : 4 * g + 4, o])
            codes_J, scale, zero = reference(w_J, v_J, alpha, beta, bits, symmetric)
            np.testing.assert_array_equal(found.codes_OGJ[o, g], codes_J)
            np.testing.assert_allclose(found.scale_OG[o, g], scale, rtol=1e-6)
            assert found.zero_OG[o, g] == zero


@pytest.mark.parametrize("bits", BITS)
def test_a_weight_inside_the_grid_moves_half_a_step_at_most(bits):
    form = Form(SHAPE, (0,), bits, 4, False)
    found = quantized(weights(), form)
    off = np.abs(form.grouped(found.float32() - weights())) / found.scale_OG[..., None]
    is_inside = (found.codes_OGJ > 0) & (found.codes_OGJ < 2**bits - 1)
    assert off[is_inside].max(initial=0) <= 0.5 + 1e-4
    assert off.max() <= 1  # the zero point is rounded too


def test_the_scale_of_a_matrix_moves_no_code():
    form = Form(SHAPE, (0,), 3, 4, False)
    a, b = quantized(weights(), form), quantized(weights() * np.float32(2.0**-20), form)
    np.testing.assert_array_equal(a.codes_OGJ[1:], b.codes_OGJ[1:])
    np.testing.assert_array_equal(a.scale_OG[1:] * np.float32(2.0**-20), b.scale_OG[1:])


def test_gradients_pass_rounding_and_stop_outside_the_grid():
    form = Form((4, 1), (0,), 2, 4, False)
    w_OGJ = jnp.array([[[-1.0, 0.2, 0.4, 2.0]]])
    knobs = Knobs.nearest(form)._replace(v_OGJ=jnp.array([[[-0.6, 0.0, 0.0, 0.1]]]))

    def total(v_OGJ):
        return rounded(w_OGJ, knobs._replace(v_OGJ=v_OGJ), form).values().sum()

    # The first weight is below the grid; the last one is on its end, where the gradient is whole.
    np.testing.assert_allclose(
        jax.jit(jax.grad(total))(knobs.v_OGJ)[0, 0], [0, 1, 1, 1]
    )  # the scale


def test_the_factor_of_a_group_has_the_gradient_of_its_scale():
    """Where rounding is the identity, dw̃ = (w̃ − w)/s · ds."""
    form = Form((4, 1), (0,), 4, 4, False)
    w_OGJ, knobs = jnp.array([[[-1.0, 0.3, 0.77, 1.9]]]), Knobs.nearest(form)

    def both(alpha_OG):
        found = rounded(w_OGJ, knobs._replace(alpha_OG=alpha_OG), form)
        return found.scale_OG, found.values()

    differentiate = jax.jit(lambda alpha_OG: jax.jvp(both, (alpha_OG,), (alpha_OG,)))
    (scale_OG, values_OGJ), tangents = differentiate(knobs.alpha_OG)
    wanted_OGJ = (values_OGJ - w_OGJ) / scale_OG[..., None] * tangents[0][..., None]
    np.testing.assert_allclose(tangents[1], wanted_OGJ, atol=1e-5)
