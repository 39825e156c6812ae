import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.optim import make_schedule

NAMES = ["constant", "piecewise", "linear", "cosine", "warmup_stable_decay"]


def by_hand(name, step, peak, num_steps, warmup, end, decay):
    if step < warmup:
        return peak * step / warmup
    progress = min(1.0, (step - warmup) / (num_steps - warmup))
    if name == "piecewise":
        return peak * 0.1 ** ((step >= 0.6 * num_steps) + (step >= 0.9 * num_steps))
    if name == "linear":
        return peak + (end - peak) * progress
    if name == "cosine":
        return end + (peak - end) * 0.5 * (1 + np.cos(np.pi * progress))
    if name == "warmup_stable_decay":
        return peak + (end - peak) * min(1.0, max(0, step - (num_steps - decay)) / decay)
    return peak


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("warmup", [0, 7])
def test_equals_the_formula_at_every_step(name, warmup):
    schedule = make_schedule(
        name, peak_value=0.3, num_steps=40, warmup_steps=warmup, end_value=0.02, decay_steps=10
    )
    values = jax.jit(jax.vmap(schedule))(jnp.arange(60))
    expected = [by_hand(name, step, 0.3, 40, warmup, 0.02, 10) for step in range(60)]
    np.testing.assert_allclose(values, expected, rtol=2e-6, atol=1e-8)
    for value in (schedule(2), schedule(jnp.int32(2))):
        assert value.dtype == jnp.float32
        assert not value.weak_type


@pytest.mark.parametrize("name", NAMES)
def test_power_of_two_on_the_peak_changes_no_bit(name):
    def values(scale):
        schedule = make_schedule(
            name, peak_value=0.3 * scale, num_steps=20, warmup_steps=3, end_value=0.01 * scale
        )
        return np.asarray(jax.vmap(schedule)(jnp.arange(21)))

    np.testing.assert_array_equal(values(2.0**-20), values(1.0) * np.float32(2.0**-20))
