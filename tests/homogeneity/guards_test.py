"""Guards, masks and predicates: what is recognised is sound, what is not sound is refused."""

import jax
import jax.numpy as jnp
import pytest

from sibert_jax.homogeneity import analyse

W = jax.random.normal(jax.random.key(0), (4, 3)).at[1].set(0.0)  # with a row where guards act
VALID = jnp.array([[True, False, True]])


def norm(w):
    return jnp.sqrt(jnp.sum(w**2, -1, keepdims=True))


def broadcast_before(w):
    z = jnp.sum(jnp.abs(w), -1)
    safe = jnp.where(z > 0, z, 1)
    return jnp.where(jnp.broadcast_to(z[:, None], w.shape) > 0, w / safe[:, None], 7.0)


def not_positive(w):
    z = jnp.sum(jax.nn.relu(w), -1, keepdims=True)
    dead = z <= 0
    return jnp.where(~dead, jax.nn.relu(w) / jnp.where(dead, 1, z), 0.25)


def is_not_zero(w):
    n = norm(w)
    return w / jnp.where(jnp.logical_not(n == 0), n, 1) + jnp.where(n != 0, 0, 2)


def variance(w):
    var = jnp.var(w, -1, keepdims=True)
    var = var + 1e-3 * (var + jnp.mean(w, -1, keepdims=True) ** 2)
    return (w - jnp.mean(w, -1, keepdims=True)) / jnp.sqrt(jnp.where(var > 0, var, 1))


def masked_softmax(w):
    return jax.nn.softmax(jnp.where(VALID, w / jnp.linalg.norm(w), -jnp.inf))


def masked_normalization(w):
    r = jax.nn.relu(w) * VALID.astype(w.dtype)
    z = jnp.sum(r, -1, keepdims=True)
    return jnp.where(z > 0, r / jnp.where(z > 0, z, 1), VALID.astype(w.dtype) / 2)


def nested(w):
    n = norm(w)
    inner = jnp.where(n > 0, jnp.where(w > 0, w / jnp.where(n > 0, n, 1), 0), 3)
    return jnp.where(w > 0, inner, jnp.where(n > 0, -1, 3))


SOUND = [
    broadcast_before, not_positive, is_not_zero, variance, masked_softmax, masked_normalization,
    nested,
]  # fmt: skip


@pytest.mark.parametrize("fn", SOUND, ids=lambda fn: fn.__name__)
def test_guard_whose_constant_is_discarded_is_recognized(fn, certify):
    assert certify(fn, W).is_invariant()
    assert analyse(jax.jit(jax.vmap(lambda w: fn(w))), jnp.stack([W, 2 * W])).is_invariant()


def kept(w):
    return jnp.where(w > 0, w, 1)


def signed_sum(w):  # it may vanish where w does not
    z = jnp.sum(w, -1, keepdims=True)
    return w / jnp.where(z != 0, z, 1)


def other_sum(w):  # ReLU(w) may vanish where w does not
    z = jnp.sum(jax.nn.relu(w), -1, keepdims=True)
    return w / jnp.where(z > 0, z, 1)


def wrong_side(w):
    z = norm(w)
    return jnp.where(z > 0, 0, w / jnp.where(z > 0, z, 1) + 1) + jnp.where(z > 0, z, 1)


def floor(w):
    return w / jnp.maximum(norm(w), 1e-12)


def flipped(w):  # the predicate of another row
    z = norm(w)
    return jnp.where(jnp.flip(z, 0) > 0, jnp.where(z > 0, z, 1), 0)


UNSOUND = [
    kept, signed_sum, other_sum, wrong_side, floor, flipped,
]  # fmt: skip


@pytest.mark.parametrize("fn", UNSOUND, ids=lambda fn: fn.__name__)
def test_guard_whose_constant_survives_is_refused(fn):
    report = analyse(fn, W)
    assert report.scalings() == []
    found = report.obstruction()
    assert found.location.file == __file__
    if fn is kept:
        assert found.primitive == "select_n"
        assert (found.degrees, found.constants) == ((1, 0), (None, 1.0))
        assert "discard the result where the guard acts" in found.repair
