import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sibert_jax.optim import effective_learning_rate, radial_cosine, rotation, sgd_rotation


@settings(max_examples=40)
@given(
    st.integers(0, 2**20),
    st.floats(-8, 0.49),
    st.floats(0.1, 10.0),
    st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_recovers_a_known_angle_however_small(seed, log_angle, stretch, scale):
    """x + u = stretch·(cos θ·x + sin θ·‖x‖·t) with a unit vector t ⟂ x turns x by θ."""
    theta = 10.0**log_angle
    rng = np.random.default_rng(seed)
    x, t = rng.normal(size=(2, 50))
    t -= t @ x / (x @ x) * x
    t /= np.linalg.norm(t)
    x *= scale
    # The radial part is left out of tiny angles: u itself must carry the digits.
    stretch = stretch if theta > 1e-3 else 1.0
    u = stretch * (np.cos(theta) * x + np.sin(theta) * np.linalg.norm(x) * t) - x
    params = {"a": jnp.asarray(x[:20], jnp.float32), "b": jnp.asarray(x[20:], jnp.float32)}
    updates = {"a": jnp.asarray(u[:20], jnp.float32), "b": jnp.asarray(u[20:], jnp.float32)}
    np.testing.assert_allclose(rotation(params, updates), theta, rtol=2e-3)


@settings(max_examples=40)
@given(st.integers(0, 2**20), st.floats(-4, 1), st.floats(0, 0.5), st.floats(-0.99, 0.99))
def test_the_angle_of_an_sgd_step_follows_from_norms_and_cosine(seed, log_ratio, decay, cosine):
    """Against numpy's angle in float64 of a step with ‖ηg‖/‖x‖ and ⟨x, g⟩/(‖x‖‖g‖) as given."""
    rng = np.random.default_rng(seed)
    x, t = rng.normal(size=(2, 30))
    t -= t @ x / (x @ x) * x
    unit = cosine * x / np.linalg.norm(x) + np.sqrt(1 - cosine**2) * t / np.linalg.norm(t)
    eta, x_norm = 0.25, np.linalg.norm(x)
    g_norm = 10.0**log_ratio * x_norm / eta
    new = (1 - decay) * x - eta * g_norm * unit
    wanted = np.arctan2(np.linalg.norm(new - new @ x / (x @ x) * x), new @ x / x_norm)
    angle = sgd_rotation(eta, decay / eta, x_norm, g_norm, cosine)
    np.testing.assert_allclose(angle, wanted, rtol=1e-3)
    updates = jnp.asarray(new - x, jnp.float32)
    np.testing.assert_allclose(rotation(jnp.asarray(x, jnp.float32), updates), angle, rtol=2e-2)


def test_the_angle_of_an_sgd_step_is_0_at_0_and_nan_of_nan():
    assert sgd_rotation(0.5, 0.1, 0.0, 1.0, 0.0) == 0
    assert sgd_rotation(0.5, 0.1, 1.0, 0.0, 0.0) == 0
    assert sgd_rotation(0.5, 0.1, 1.0, 1.0, 1.0) == 0
    assert jnp.isnan(sgd_rotation(0.5, 0.1, 1.0, jnp.nan, 0.0))
    assert jnp.isnan(sgd_rotation(0.5, 0.1, 1.0, 1.0, jnp.nan))


def test_a_radial_update_does_not_rotate_and_a_reversal_rotates_by_pi():
    x = jnp.array([3.0, 4.0])
    assert rotation(x, 0.5 * x) < 1e-6
    np.testing.assert_allclose(rotation(x, -2 * x), np.pi, rtol=1e-6)


def test_zero_parameters_have_rotation_radial_part_and_effective_rate_zero():
    zero, one = jnp.zeros(3), jnp.ones(3)
    assert rotation(zero, one) == 0
    assert rotation(one, zero) == 0
    assert radial_cosine(zero, one) == 0
    assert radial_cosine(one, zero) == 0
    assert effective_learning_rate(0.1, zero) == 0


def test_a_nan_among_the_parameters_shows_in_all_three():
    broken, one = jnp.array([1.0, jnp.nan, 2.0]), jnp.ones(3)
    assert jnp.isnan(rotation(broken, one))
    assert jnp.isnan(radial_cosine(broken, one))
    assert jnp.isnan(radial_cosine(one, broken))
    assert jnp.isnan(effective_learning_rate(0.1, broken))


def test_radial_cosine_is_the_cosine():
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(2, 30))
    expected = x @ g / np.linalg.norm(x) / np.linalg.norm(g)
    actual = radial_cosine(jnp.asarray(x, jnp.float32), jnp.asarray(g, jnp.float32))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize("eta", [0.5, np.float32(0.5)])
def test_effective_learning_rate_divides_by_the_squared_norm(eta):
    params = {"a": jnp.array([3.0]), "b": jnp.array([[4.0]], jnp.bfloat16)}
    np.testing.assert_allclose(effective_learning_rate(eta, params), 0.02, rtol=1e-6)


@pytest.mark.parametrize(
    ("of_x", "of_u"), [(1e-15, 1e-17), (1e15, 1e18), (1e-15, 1e15), (1, 1e-17)]
)
def test_products_of_norms_may_lie_beyond_float32(of_x, of_u):
    """Against float64: the norms are within 1e-19 ... 1e19, their products and squares not."""
    rng = np.random.default_rng(3)
    x, u = of_x * rng.normal(size=8), of_u * rng.normal(size=8)
    arrays = jnp.asarray(x, jnp.float32), jnp.asarray(u, jnp.float32)
    cosine = x @ u / np.linalg.norm(x) / np.linalg.norm(u)
    np.testing.assert_allclose(radial_cosine(*arrays), cosine, rtol=1e-5)
    tangential = np.linalg.norm(u - x @ u / (x @ x) * x)
    angle = np.arctan2(tangential, np.linalg.norm(x) + cosine * np.linalg.norm(u))
    np.testing.assert_allclose(rotation(*arrays), angle, rtol=1e-5)


def test_the_effective_learning_rate_of_small_parameters_is_large():
    np.testing.assert_allclose(
        effective_learning_rate(1e-20, jnp.full(4, 1e-17)), 2.5e13, rtol=1e-5
    )
    assert effective_learning_rate(1.0, jnp.full(4, 1e-18)) > 1e34
