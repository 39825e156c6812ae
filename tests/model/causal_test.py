"""Causal encoders: no token sees a later one, in any form; keys and values can be kept."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.homogeneity import analyse
from sibert_jax.model import Encoder
from tests.builders import model_config, random_params
from tests.model.attention_reference import rotated

LENGTH = 12
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 40, (2, LENGTH)), jnp.int32)
VALID = jnp.ones((2, LENGTH), bool)
FORMS = [
    {"arch": "sigpt", "attention_impl": "blockwise"},
    *(
        pytest.param(changes, marks=pytest.mark.slow)
        for changes in [
            {"arch": "gpt", "attention_window": 3, "global_attention_every": 2},
            {"arch": "sigpt"},
            {"arch": "sigpt", "attention_window": 3},
            {"arch": "gpt", "scan_layers": False},
            {"arch": "sigpt", "positions": "rotary"},
            {"arch": "sigpt_qk_norm"},
            {"arch": "sigpt_qk_norm", "positions": "rotary", "attention_window": 3},
            {"arch": "sigpt", "dropout": 0.1},
        ]
    ),
]


def build(**changes):
    module = Encoder(model_config(**changes))
    params = random_params(module.init, TOKENS, 0 * TOKENS, VALID, std=0.2)
    return module, jax.tree.map(jnp.asarray, params)


@pytest.mark.parametrize("changes", FORMS, ids=str)
def test_no_gradient_goes_to_later_tokens(changes):
    module, params = build(**changes)
    rows = jax.nn.one_hot(TOKENS[0], 40)

    def features(shift_LD):
        """With something added to what each token is looked up as."""
        table = params["params"]["embed"]["token"]
        tables = {"token": jnp.concatenate([table, rows @ table + shift_LD])}
        changed = params["params"] | {"embed": params["params"]["embed"] | tables}
        own = jnp.arange(40, 40 + LENGTH, dtype=jnp.int32)[None]
        rngs = {"dropout": jax.random.key(1)}
        return wide.apply(
            {"params": changed}, own, 0 * own, VALID[:1], rngs=rngs,
            deterministic=not module.cfg.dropout,
        )[0][0]  # fmt: skip

    wide = Encoder(dataclasses.replace(module.cfg, vocab_size=40 + LENGTH))
    jacobian = jax.jit(jax.jacrev(features))(jnp.zeros((LENGTH, 16)))
    felt = np.abs(np.asarray(jacobian)).max(axis=(1, 3))  # [i, j]: of feature i by token j
    later = np.arange(LENGTH)[None] > np.arange(LENGTH)[:, None]
    assert (felt[later] == 0).all()
    assert (np.diag(felt) > 0).all()
    assert (felt[np.arange(LENGTH)[None] + 1 == np.arange(LENGTH)[:, None]] > 0).any()


def in_numpy(params, cfg, tokens):
    """GPT-2 as its paper and code have it, for one sequence, in float64."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params["params"])

    def norm(x, p):
        centered = x - x.mean(-1, keepdims=True)
        var = (centered**2).mean(-1, keepdims=True)
        return centered / np.sqrt(var + cfg.norm_eps) * p["scale"] + p["bias"]

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    x, place = p["embed"]["token"][tokens], np.arange(len(tokens))[None]
    if cfg.positions == "learned":
        x = x + p["embed"]["position"][: len(tokens)]
    for i in range(cfg.depth):
        layer = jax.tree.map(lambda leaf, i=i: leaf[i], p["layers"]["layer"])
        a, u = layer["attention"], norm(x, layer["attention_norm"])
        q, k, v = (
            np.einsum("ld,dhk->hlk", u, a[name]["kernel"]) + a[name]["bias"][:, None]
            for name in ("query", "key", "value")
        )
        if cfg.positions == "rotary":
            q, k = (rotated(y.swapaxes(0, 1)[None], place)[0].swapaxes(0, 1) for y in (q, k))
        scores = np.einsum("hlk,hmk->hlm", q, k) / np.sqrt(cfg.head_width)
        scores[:, np.triu(np.ones(scores.shape[1:], bool), 1)] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        y = np.einsum("hlm,hmk,hkd->ld", weights, v, a["out"]["kernel"]) + a["out"]["bias"]
        x = x + y
        f, u = layer["ffn"], norm(x, layer["ffn_norm"])
        h = gelu(u @ f["up"]["kernel"] + f["up"]["bias"])
        x = x + h @ f["down"]["kernel"] + f["down"]["bias"]
    return norm(x, p["final_norm"])


@pytest.mark.parametrize("positions", ["learned", pytest.param("rotary", marks=pytest.mark.slow)])
def test_gpt_is_gpt2_or_that_with_rotary_positions(positions):
    module, params = build(arch="gpt", norm_eps=1e-5, positions=positions)
    found, _ = jax.jit(module.apply)(params, TOKENS, 0 * TOKENS, VALID)
    for row in range(2):
        wanted = in_numpy(params, module.cfg, np.asarray(TOKENS[row]))
        np.testing.assert_allclose(found[row], wanted, atol=3e-5)
    assert sorted(params["params"]) == ["embed", "final_norm", "layers"]
    tables = ["position", "token"] if positions == "learned" else ["token"]
    assert sorted(params["params"]["embed"]) == tables


def test_the_branches_of_gpt_start_smaller_the_deeper_it_is():
    module = Encoder(model_config(arch="gpt", depth=8, width=32))
    init = jax.jit(module.init)
    params = init(jax.random.key(0), TOKENS, 0 * TOKENS, VALID)["params"]["layers"]["layer"]
    for branch, first, last in (("attention", "query", "out"), ("ffn", "up", "down")):
        ratio = np.std(params[branch][first]["kernel"]) / np.std(params[branch][last]["kernel"])
        assert ratio == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("changes", FORMS[:-1], ids=str)
def test_documents_in_one_row_are_as_alone(changes):
    module, params = build(**changes)
    documents = jnp.asarray([[0] * 5 + [1] * 7, [0] * 12])
    run = jax.jit(module.apply)
    found, dead = run(params, TOKENS, 0 * TOKENS, VALID, documents_BL=documents)
    for row, part in ((0, slice(0, 5)), (0, slice(5, 12)), (1, slice(0, 12))):
        alone = jnp.roll(TOKENS[row : row + 1], -part.start, axis=1)  # causal: the rest is not seen
        wanted, _ = run(params, alone, 0 * alone, VALID[:1])
        np.testing.assert_allclose(found[row, part], wanted[0, : part.stop - part.start], atol=1e-5)
    other = TOKENS.at[0, :5].add(1)
    again, _ = run(params, other % 40, 0 * TOKENS, VALID, documents_BL=documents)
    np.testing.assert_array_equal(again[0, 5:], found[0, 5:])
    assert dead.shape == (2,)


@pytest.mark.slow  # by what it generates: tests/tasks/causal_lm
@pytest.mark.parametrize("changes", FORMS[:-1], ids=str)
def test_with_a_cache_one_token_at_a_time_is_the_whole(changes):
    module, params = build(**changes)
    wanted, _ = jax.jit(module.apply)(params, TOKENS, 0 * TOKENS, VALID)
    start = 5  # of a first call that is padded to 7, of 12
    first = jnp.pad(TOKENS[:, :start], ((0, 0), (0, 2)))
    seen = jnp.arange(7)[None] < jnp.full((2, 1), start)
    run = jax.jit(functools.partial(module.apply, mutable=["cache"]))
    (features, _), kept = run(params, first, 0 * first, seen)
    np.testing.assert_allclose(features[:, :start], wanted[:, :start], atol=1e-5)
    kept = jax.tree.map(
        lambda x: np.pad(x, [*[(0, 0)] * (x.ndim - 3), (0, 5), (0, 0), (0, 0)]), kept
    )
    for place in range(start, LENGTH):
        token_B1 = TOKENS[:, place : place + 1]
        seen = jnp.arange(LENGTH)[None] <= jnp.full((2, 1), place)
        (features, _), kept = run({**params, **kept}, token_B1, 0 * token_B1, seen, place=place)
        np.testing.assert_allclose(features[:, 0], wanted[:, place], atol=1e-5)


@pytest.mark.slow  # the same with a head: tests/tasks/causal_lm
def test_powers_of_two_change_no_bit_of_sigpt_and_its_gradient_is_orthogonal():
    module, params = build(arch="sigpt", qkv_bias=True)
    weights = np.random.default_rng(3).normal(size=(2, LENGTH, 16)).astype(np.float32)

    def loss(params):
        features, dead = module.apply(params, TOKENS, 0 * TOKENS, VALID)
        return jnp.sum(weights * features), (features, dead)

    run = jax.jit(jax.grad(loss, has_aux=True))
    gradient, wanted = run(params)
    for c in (2.0**-10, 2.0**3):
        found = run(jax.tree.map(lambda x, c=c: x * np.float32(c), params))
        jax.tree.map(np.testing.assert_array_equal, found[1], wanted)
        jax.tree.map(lambda a, b, c=c: np.testing.assert_array_equal(a * c, b), found[0], gradient)
    x, g = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]).astype(np.float64)
        for tree in (params, gradient)
    )
    assert abs(x @ g) <= 1e-6 * np.linalg.norm(x) * np.linalg.norm(g)


@pytest.mark.parametrize(
    "changes",
    [
        {"attention_impl": "blockwise"},
        {"attention_window": 3, "positions": "rotary"},
        pytest.param({"arch": "sigpt_qk_norm", "positions": "rotary"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_sigpt_is_certified(changes):
    module, params = build(**{"arch": "sigpt", **changes})
    documents = jnp.asarray([[0] * 5 + [1] * 7] * 2)

    def features(params):
        return module.apply(params, TOKENS, 0 * TOKENS, VALID, documents_BL=documents)[0]

    report = analyse(features, params)
    assert report.is_invariant()
    assert report.unknown_primitives() == []
