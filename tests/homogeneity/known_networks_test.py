"""Networks whose symmetries are known: each expected answer is derived by hand beside it.

Small letters are exponents of the leaves. A degree-0 output is asked for unless said otherwise.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.homogeneity import analyse

WIDTH, TOKENS = 4, 3


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


X = normal(100, TOKENS, WIDTH)
VECTORS = {"gain", "bias", "b1", "b2", "b3", "scale_qk", "alpha_attention", "alpha_mlp"}


def params_of(names):
    """Return a square matrix for each name, a vector for those of VECTORS."""
    shape = (WIDTH, WIDTH)
    return {n: normal(i, *shape[n in VECTORS :]) for i, n in enumerate(names.split())}


def norm(x):
    """LayerNorm without affine; rows of zeros give zeros."""
    centered = x - jnp.mean(x, -1, keepdims=True)
    var = jnp.mean(centered**2, -1, keepdims=True)
    return jnp.where(var > 0, centered / jnp.sqrt(jnp.where(var > 0, var, 1)), 0)


def norm_with_epsilon(p, x):
    x = x @ p["w1"]
    return (x - jnp.mean(x)) / jnp.sqrt(jnp.var(x) + 1e-5) @ p["w2"]


def unit(x, axis=-1):
    return x / jnp.linalg.norm(x, axis=axis, keepdims=True)


def relu_mlp(p, x):
    return jax.nn.relu(jax.nn.relu(x @ p["w1"]) @ p["w2"]) @ p["w3"]


def relu_mlp_with_biases(p, x):
    for i in (1, 2, 3):
        x = jax.nn.relu(x) @ p[f"w{i}"] + p[f"b{i}"][None]
    return x


def residual(p, x):
    x = x @ p["stem"]
    h = norm(x @ p["w1"]) * p.get("gain", jnp.ones(WIDTH))[None]
    h = h + p["bias"][None] if "bias" in p else h
    return norm(x + jax.nn.relu(h) @ p["w2"])


def ngpt(p, x):
    w = {name: unit(p[name], 0) for name in p if name not in VECTORS}
    h = unit(x @ w["embed"])
    q, k = unit(h @ w["q"]) * p["scale_qk"][None], unit(h @ w["k"]) * p["scale_qk"][None]
    branch = jax.nn.softmax(q @ k.T) @ (h @ w["v"]) @ w["o"]
    h = unit(h + p["alpha_attention"][None] * (unit(branch) - h))
    branch = (jax.nn.silu(h @ w["gate"]) * (h @ w["up"])) @ w["down"]
    return unit(h + p["alpha_mlp"][None] * (unit(branch) - h))


def gated(p, x):
    return (jax.nn.silu(x @ p["gate"]) * (x @ p["up"])) @ p["down"]


def relu_weights(scores):
    r = jax.nn.relu(scores)
    total = jnp.sum(r, -1, keepdims=True)
    return jnp.where(total > 0, r / jnp.where(total > 0, total, 1), 1 / TOKENS)


def attention(weights):
    return lambda p, x: weights(x @ p["q"] @ (x @ p["k"]).T) @ (x @ p["v"]) @ p["o"]


def tied_table(p, x):
    features = norm(norm(p["embed"][jnp.array([0, 3, 1])]) @ p["w"])
    return jnp.mean(jax.nn.logsumexp(features @ p["embed"].T, axis=-1))


VALUE_OUT, QUERY_KEY = {"v": 1, "o": -1}, {"q": 1, "k": -1}
MATRICES_OF_NGPT = "q k v o up gate down embed"
# name: (function, its leaves, a basis of the symmetries)
NETWORKS = {
    # a + b = 0
    "matrix factorization": (lambda p, x: p["a"] @ p["b"].T, "a b", [{"a": 1, "b": -1}]),
    # the output has degree w1 + w2 + w3
    "ReLU MLP": (relu_mlp, "w1 w2 w3", [{"w1": 1, "w2": -1}, {"w2": 1, "w3": -1}]),
    # b1 = w1, b2 = w1 + w2, b3 = w1 + w2 + w3 = 0
    "ReLU MLP with biases": (
        relu_mlp_with_biases, "w1 w2 w3 b1 b2 b3",
        [{"w1": 1, "b1": 1, "w2": -1}, {"w2": 1, "b2": 1, "w3": -1}],
    ),
    "residual, layer norm": (residual, "stem w1 w2", [{"stem": 1, "w2": 1}, {"w1": 1}]),
    # bias = gain, gain + w2 = stem, w1 free
    "residual, affine norm": (
        residual, "stem w1 w2 gain bias",
        [{"w1": 1}, {"stem": 1, "w2": 1}, {"gain": 1, "bias": 1, "w2": -1}],
    ),
    "norm with epsilon": (norm_with_epsilon, "w1 w2", []),  # 2·w1 = 0
    # Each matrix is divided by its norms; softmax wants 2·scale_qk = 0, h + α(...) wants α = 0.
    "nGPT": (
        ngpt, f"{MATRICES_OF_NGPT} scale_qk alpha_attention alpha_mlp",
        [{name: 1} for name in MATRICES_OF_NGPT.split()],
    ),
    # gate = 0, up + down = 0
    "gated MLP with SiLU": (gated, "gate up down", [{"up": 1, "down": -1}]),
    # softmax: q + k = 0; value against output: v + o = 0
    "attention": (attention(jax.nn.softmax), "q k v o", [VALUE_OUT, QUERY_KEY]),
    # ReLU normalized by the row sum: q and k free, each alone
    "ReLU attention": (attention(relu_weights), "q k v o", [VALUE_OUT, {"q": 1}, {"k": 1}]),
    # logits of degree embed = 0; `out` is not used
    "tied table": (tied_table, "embed w out", [{"w": 1}, {"out": 1}]),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_symmetries_are_those_derived_by_hand(name, certify):
    fn, names, wanted = NETWORKS[name]
    report = certify(fn, params_of(names), X)
    found = report.symmetries()

    def rank(rows):
        table = [[float(row.get(leaf, 0)) for leaf in report.names] for row in rows]
        return np.linalg.matrix_rank(np.array(table).reshape(-1, len(report.names)))

    assert rank(found) == rank(wanted) == rank([*found, *wanted]) == len(found)


def test_graded_family_of_a_relu_mlp_with_biases():
    fn, names, _ = NETWORKS["ReLU MLP with biases"]
    report = analyse(fn, params_of(names), X)
    assert report.degree({"w1": 1, "w2": 1, "w3": 1, "b1": 1, "b2": 2, "b3": 3}) == 3
    assert report.degree() is None  # joint scaling: b2 = 1 is not w1 + w2 = 2


def test_gradient_of_an_invariant_loss_has_degree_minus_one(certify):
    def loss(p, x):
        return jnp.sum(jnp.tanh(norm(jax.nn.relu(norm(x @ p["w1"])) @ p["w2"])) ** 3)

    report = certify(jax.grad(loss), params_of("w1 w2"), X)
    # L(c·w) = L(w) differentiates to c·∇L(c·w) = ∇L(w): degree -1 in that leaf, 0 in the other.
    assert report.degrees == {"w1": {"w1": -1}, "w2": {"w2": -1}}
