"""No false certificate: random programs are rescaled by every exponent that is certified."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from sibert_jax.homogeneity import analyse, rules
from sibert_jax.homogeneity.degree import ZERO

from .conftest import worst_error

N = 4  # every tensor is N × N, or N × 1 after a reduction
NAMES = ("a", "b", "d", "e", "f")


def relu_norm(x, y):
    r = jnp.maximum(x, 0)
    total = jnp.sum(r, -1, keepdims=True)
    return r / jnp.where(total > 0, total, 1)


def guarded_quotient(x, y):
    total = jnp.sum(y, -1, keepdims=True)
    return jnp.where(total > 0, x / jnp.where(total > 0, total, 1), 0)


def guard_by_another(x, y):
    total = jnp.sum(jnp.abs(y), -1, keepdims=True)
    return x / jnp.where(total > 0, total, 1)


def unit_rows(x, y):
    square = jnp.sum(jnp.square(x), -1, keepdims=True)
    return x / jnp.sqrt(jnp.where(square <= 0, 1, square))


def layer_norm(x, y):
    centred = x - jnp.mean(x, -1, keepdims=True)
    var = jnp.mean(centred**2, -1, keepdims=True)
    return jnp.where(var > 0, centred / jnp.sqrt(jnp.where(var > 0, var, 1)), 0)


def kept_guard(x, y):
    return jnp.where(x > 0, x, 1) * y


def gradient(x, y):
    return jax.grad(lambda z: jnp.sum(jnp.maximum(z @ y, 0) ** 2))(x)


def scan_sum(x, y):
    return lax.scan(lambda carry, row: (carry + row[None] * y, row), jnp.zeros((N, N)), x)[0]


def scan_product(x, y):
    return lax.scan(lambda carry, _: (jnp.maximum(carry @ y, 0), None), x, None, length=2)[0]


def while_halving(x, y):
    return lax.while_loop(
        lambda c: (jnp.max(c[1]) > 0) & (c[0] < 3), lambda c: (c[0] + 1, c[1] - jnp.max(y)), (0, x)
    )[1]


BINARY = [
    lambda x, y: x @ y, lambda x, y: x @ y, lambda x, y: x * y,
    lambda x, y: x + y, lambda x, y: x - y, lambda x, y: x / y,
    lambda x, y: jnp.where(x > 0, y, 0), lambda x, y: jnp.where(x > y, x, y),
    lambda x, y: jnp.where(x > y, x, 0), lambda x, y: jnp.maximum(x, y),
    lambda x, y: jnp.where(jnp.arange(N)[None] < 2, x, y),
    lambda x, y: jnp.concatenate([x, y])[1 : N + 1],
    lambda x, y: x[jnp.argsort(y[:, 0])],
    lambda x, y: lax.cond(jnp.sum(x) > 0, lambda: x, lambda: y),
    lambda x, y: jax.vmap(lambda r, s: r * jnp.sum(s))(x, y),
    lambda x, y: x.at[0].set(y[1]),
    guarded_quotient, guard_by_another, kept_guard, gradient, scan_sum, scan_product, while_halving,
]  # fmt: skip
UNARY = [
    lambda x, y: jnp.maximum(x, 0), lambda x, y: jnp.abs(x), lambda x, y: jnp.square(x),
    lambda x, y: jnp.sqrt(jnp.abs(x)), lambda x, y: jnp.tanh(x), lambda x, y: x + 0.5,
    lambda x, y: 3.0 * x, lambda x, y: jnp.maximum(x, 0.1), lambda x, y: jnp.where(x > 0.5, x, 0),
    lambda x, y: jax.nn.softmax(x), lambda x, y: jnp.sort(x, 0), lambda x, y: jnp.cumsum(x, 1),
    lambda x, y: x / jnp.linalg.norm(x),
    lambda x, y: jnp.sign(x) * x.T,
    lambda x, y: jnp.where(jnp.isnan(x), 0, x),
    lambda x, y: jnp.broadcast_to(jnp.max(x, 1, keepdims=True), x.shape),
    lambda x, y: jnp.broadcast_to(jnp.prod(x, 1, keepdims=True), x.shape),
    jax.checkpoint(lambda x, y: jnp.maximum(x, 0) ** 2),
    jax.jit(lambda x, y: x - jnp.mean(x, 0, keepdims=True)),
    relu_norm, unit_rows, layer_norm,
]  # fmt: skip


@functools.lru_cache(maxsize=1)
def random_network(seed):
    """Return a jitted function of {a, b, d, e, f} made of 3 to 9 random operations, and these."""
    rng = np.random.default_rng(seed)
    steps = []
    for number in range(rng.integers(3, 10)):
        menu = BINARY if rng.random() < 0.5 else UNARY
        known = len(NAMES) + number
        # Recent tensors are likelier, so that depth grows.
        first = known - 1 - min(rng.geometric(0.4) - 1, known - 1)
        steps.append((menu[rng.integers(len(menu))], int(first), int(rng.integers(known))))
    ends_normalized = rng.random() < 0.5

    @jax.jit
    def network(params):
        tensors = [params[name] for name in NAMES]
        for operation, i, j in steps:
            tensors.append(operation(tensors[i], tensors[j]))
        return layer_norm(tensors[-1], None) if ends_normalized else tensors[-1]

    params = {
        name: jnp.asarray(rng.normal(size=(N, N)) + 0.2 * (i == 0), jnp.float32)
        for i, name in enumerate(NAMES)
    }
    if rng.random() < 0.3:  # rows of zeros, where guards act
        params["a"] = params["a"].at[1].set(0)
    return network, params


def check(seed):
    """Return how many scalings were certified; fail if one does not hold.

    c = 4 and its roots are powers of two, so that nothing is rounded and no comparison flips.
    """
    network, params = random_network(seed)
    report = analyse(network, params)
    if not 1e-12 < np.max(np.abs(network(params))) < 1e12:
        return 0
    error = worst_error(network, params, report, c=4.0)
    assert error < 1e-3, f"false certificate for the network of seed {seed}: {report.scalings()}"
    return len(report.scalings())


@settings(max_examples=6, database=None)
@given(st.integers(0, 2**32 - 1))
def test_what_is_certified_holds_in_random_networks(seed):
    check(seed)


@pytest.mark.parametrize(
    ("primitive", "wrong", "seed"),
    [
        ("square", lambda step, x: x, 19),
        ("add", lambda step, x, y: x if x is not None else y, 25),
        ("dot_general", lambda step, x, y: x, 1),
        ("tanh", lambda step, x: x, 47),
        ("gt", lambda step, x, y: ZERO, 22),
    ],
)
def test_random_networks_find_a_wrong_rule(primitive, wrong, seed, monkeypatch):
    assert check(seed) > 0  # a network with certificates that shows the mistake
    rule = rules.Rule(wrong, rules.RULES[primitive].kind)
    monkeypatch.setitem(rules.RULES, primitive, rule)
    with pytest.raises(AssertionError, match="false certificate"):
        check(seed)


@pytest.mark.slow
def test_no_false_certificate_in_2400_random_networks():
    assert sum(check(seed) > 0 for seed in range(10_000, 12_400)) > 800
