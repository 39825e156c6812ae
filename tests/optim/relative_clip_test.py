import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sibert_jax.optim import ROWS, clip_by_relative_global_norm

pytestmark = pytest.mark.filterwarnings("error")

SHAPES = {"a": (3, 5), "b": (4,), "c": ()}


def random_tree(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(scale * rng.normal(size=s), jnp.float32) for k, s in SHAPES.items()}


def numpy_norm(tree):
    return np.sqrt(sum(np.sum(np.square(np.float64(x))) for x in jax.tree.leaves(tree)))


def clip(tx, updates, params):
    return tx.update(updates, tx.init(params), params)


seeds = st.integers(0, 2**20)
ratios = st.floats(1e-3, 1e3)
scales = st.sampled_from([1e-6, 1e-3, 1.0, 1e3, 1e6])
few = settings(max_examples=20)


@few
@given(seeds, ratios, scales)
def test_the_updates_never_exceed_the_ratio(seed, ratio, scale):
    params, updates = random_tree(seed), random_tree(seed + 1, scale)
    out, _ = clip(clip_by_relative_global_norm(ratio), updates, params)
    assert numpy_norm(out) <= ratio * numpy_norm(params) * (1 + 1e-6)


@few
@given(seeds, ratios, scales)
def test_equals_the_formula_in_float64(seed, ratio, scale):
    params, updates = random_tree(seed), random_tree(seed + 1, scale)
    out, state = clip(clip_by_relative_global_norm(ratio), updates, params)
    factor = min(1.0, ratio * numpy_norm(params) / numpy_norm(updates))
    for name in SHAPES:
        np.testing.assert_allclose(out[name], factor * np.float64(updates[name]), rtol=1e-6)
    np.testing.assert_allclose(state.grad_norm, numpy_norm(updates), rtol=1e-6)
    np.testing.assert_allclose(state.param_norm, numpy_norm(params), rtol=1e-6)
    np.testing.assert_allclose(state.ratio, numpy_norm(updates) / numpy_norm(params), rtol=1e-6)
    assert bool(state.clipped) == (factor < 1)


@few
@given(seeds, ratios, scales)
def test_clipping_twice_is_clipping_once(seed, ratio, scale):
    tx = clip_by_relative_global_norm(ratio)
    params = random_tree(seed)
    once, _ = clip(tx, random_tree(seed + 1, scale), params)
    twice, _ = clip(tx, once, params)
    for name in SHAPES:
        np.testing.assert_allclose(twice[name], once[name], rtol=3e-7)


@few
@given(seeds, ratios, scales)
def test_the_direction_is_kept(seed, ratio, scale):
    """One factor in (0, 1] for every entry of every leaf."""
    params, updates = random_tree(seed), random_tree(seed + 1, scale)
    out, _ = clip(clip_by_relative_global_norm(ratio), updates, params)
    factors = np.concatenate([np.ravel(out[k]) / np.ravel(np.float64(updates[k])) for k in SHAPES])
    assert np.min(factors) > 0
    assert np.max(factors) <= 1
    np.testing.assert_allclose(factors, np.mean(factors), rtol=3e-7)


@few
@given(seeds, st.floats(1e-4, 1e4), ratios)
def test_commutes_with_scaling_parameters_and_updates_together(seed, c, ratio):
    tx = clip_by_relative_global_norm(ratio)
    params, updates = random_tree(seed), random_tree(seed + 1)

    def scaled(tree):
        return jax.tree.map(lambda x: c * x, tree)

    out, _ = clip(tx, updates, params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6),
        clip(tx, scaled(updates), scaled(params))[0],
        scaled(out),
    )


@few
@given(seeds, st.integers(-20, 20), st.integers(-20, 20), ratios)
def test_powers_of_two_change_no_bit(seed, i, j, ratio):
    """(x, u, r) -> (cx, du, rd/c) gives d times the result, clipped or not."""
    c, d = 2.0**i, 2.0**j
    params, updates = random_tree(seed), random_tree(seed + 1)
    ratio = float(np.float32(ratio))
    out, state = clip(clip_by_relative_global_norm(ratio), updates, params)
    scaled, scaled_state = clip(
        clip_by_relative_global_norm(ratio * d / c),
        jax.tree.map(lambda u: d * u, updates),
        jax.tree.map(lambda x: c * x, params),
    )
    for name in SHAPES:
        np.testing.assert_array_equal(scaled[name], d * np.asarray(out[name]))
    assert scaled_state.clipped == state.clipped


def test_updates_below_the_bound_are_returned_bit_for_bit():
    params, updates = random_tree(0), random_tree(1)
    out, state = clip(clip_by_relative_global_norm(100.0), updates, params)
    jax.tree.map(np.testing.assert_array_equal, out, updates)
    assert not state.clipped


def test_zero_updates_stay_zero_and_are_not_clipped():
    params = random_tree(0)
    zeros = jax.tree.map(jnp.zeros_like, params)
    for ratio in (0.0, 0.5):
        out, state = clip(clip_by_relative_global_norm(ratio), zeros, params)
        jax.tree.map(np.testing.assert_array_equal, out, zeros)
        assert not state.clipped
        assert state.ratio == 0


def test_a_block_of_zero_norm_passes_unclipped():
    updates = random_tree(1, 1e3)
    zeros = jax.tree.map(jnp.zeros_like, updates)
    out, state = clip(clip_by_relative_global_norm(0.5), updates, zeros)
    jax.tree.map(np.testing.assert_array_equal, out, updates)
    assert state.ratio == 0
    assert not state.clipped


def test_a_ratio_of_zero_stops_every_update():
    out, state = clip(clip_by_relative_global_norm(0.0), random_tree(1), random_tree(0))
    assert numpy_norm(out) == 0
    assert state.clipped


def test_an_infinite_ratio_leaves_updates_alone_and_still_records_norms():
    params, updates = random_tree(0), random_tree(1, 1e6)
    out, state = clip(clip_by_relative_global_norm(float("inf")), updates, params)
    jax.tree.map(np.testing.assert_array_equal, out, updates)
    np.testing.assert_allclose(state.grad_norm, numpy_norm(updates), rtol=1e-6)
    scheduled, _ = clip(clip_by_relative_global_norm(lambda _: jnp.inf), updates, params)
    jax.tree.map(np.testing.assert_array_equal, scheduled, updates)


def test_a_nan_stays_in_its_own_leaf():
    updates = random_tree(1, 1e6) | {"b": jnp.array([1.0, jnp.nan, 2.0, 3.0])}
    out, state = clip(clip_by_relative_global_norm(0.5), updates, random_tree(0))
    np.testing.assert_array_equal(out["a"], updates["a"])
    np.testing.assert_array_equal(out["b"], updates["b"])
    assert np.isnan(state.grad_norm)
    assert not state.clipped


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
def test_parameters_that_are_not_finite_show_and_do_not_clip(value):
    params, updates = random_tree(0) | {"b": jnp.full(4, value)}, random_tree(1, 1e6)
    out, state = clip(clip_by_relative_global_norm(0.5), updates, params)
    jax.tree.map(np.testing.assert_array_equal, out, updates)
    assert not state.clipped
    np.testing.assert_array_equal(state.param_norm, value)
    np.testing.assert_array_equal(state.ratio, 0.0 if value == jnp.inf else jnp.nan)


def test_an_infinite_entry_becomes_nan_and_all_others_zero():
    updates = random_tree(1) | {"b": jnp.array([1.0, jnp.inf, 2.0, 3.0])}
    out, state = clip(clip_by_relative_global_norm(0.5), updates, random_tree(0))
    np.testing.assert_array_equal(out["b"], [0.0, np.nan, 0.0, 0.0])
    np.testing.assert_array_equal(out["a"], np.zeros((3, 5)))
    assert state.clipped


def test_a_norm_that_overflows_float32_stops_the_step():
    updates = jax.tree.map(lambda x: jnp.full_like(x, 1e30), random_tree(0))
    out, state = clip(clip_by_relative_global_norm(0.5), updates, random_tree(0))
    assert numpy_norm(out) == 0
    assert state.clipped


def test_norms_that_underflow_float32_count_as_zero():
    tiny = jax.tree.map(lambda x: jnp.full_like(x, 1e-30), random_tree(0))
    out, state = clip(clip_by_relative_global_norm(0.5), tiny, random_tree(0))
    jax.tree.map(np.testing.assert_array_equal, out, tiny)
    assert state.grad_norm == 0
    out, _ = clip(clip_by_relative_global_norm(0.5), random_tree(1), tiny)
    jax.tree.map(np.testing.assert_array_equal, out, random_tree(1))


def test_a_schedule_is_read_at_the_number_of_steps_taken():
    tx = clip_by_relative_global_norm(lambda count: 0.5 / (1.0 + count.astype(float)))
    params, updates = random_tree(0), random_tree(1, 1e3)
    state = tx.init(params)
    for step in range(3):
        out, state = tx.update(updates, state, params)
        np.testing.assert_allclose(
            numpy_norm(out), 0.5 / (1 + step) * numpy_norm(params), rtol=1e-6
        )
    assert state.count == 3
    assert state.clipped_steps == 3


def test_clipped_steps_counts_only_steps_that_were_clipped():
    tx = clip_by_relative_global_norm(1.0)
    params = random_tree(0)
    state = tx.init(params)
    for scale in (1e-3, 1e3, 1e-3, 1e3, 1e3):
        _, state = tx.update(random_tree(1, scale), state, params)
    assert state.clipped_steps == 3
    assert state.count == 5


def test_bfloat16_leaves_keep_their_dtype_and_float32_norms():
    params = {"w": jnp.full((1000,), 3.0, jnp.bfloat16), "b": jnp.ones(3)}
    updates = {"w": jnp.full((1000,), 7.0, jnp.bfloat16), "b": jnp.ones(3)}
    out, state = clip(clip_by_relative_global_norm(0.5), updates, params)
    assert out["w"].dtype == jnp.bfloat16
    assert out["b"].dtype == jnp.float32
    np.testing.assert_allclose(state.grad_norm, np.sqrt(49_003), rtol=1e-6)
    assert state.grad_norm.dtype == jnp.float32


def test_labels_make_one_norm_a_block():
    params, updates = random_tree(0), random_tree(1)
    tx = clip_by_relative_global_norm(0.1, blocks={"a": "matrix", "b": "rest", "c": "rest"})
    out, state = clip(tx, updates, params)
    for members in (["a"], ["b", "c"]):
        x, u, y = ({k: tree[k] for k in members} for tree in (params, updates, out))
        alone, alone_state = clip(clip_by_relative_global_norm(0.1), u, x)
        jax.tree.map(np.testing.assert_array_equal, y, alone)
        name = "matrix" if members == ["a"] else "rest"
        assert state.grad_norm[name] == alone_state.grad_norm
        assert state.clipped_steps[name] == 1


def test_labels_may_be_a_prefix_or_a_function():
    params = {"enc": random_tree(0), "dec": random_tree(1)}
    updates = {"enc": random_tree(2), "dec": random_tree(3, 1e3)}
    prefix = {"enc": "e", "dec": "d"}
    by_prefix, _ = clip(clip_by_relative_global_norm(0.1, blocks=prefix), updates, params)
    full = {k: jax.tree.map(lambda _, v=v: v, params[k]) for k, v in prefix.items()}
    by_function, _ = clip(clip_by_relative_global_norm(0.1, blocks=lambda _: full), updates, params)
    jax.tree.map(np.testing.assert_array_equal, by_prefix, by_function)
    one_norm, _ = clip(clip_by_relative_global_norm(0.1), updates, params)
    assert not np.array_equal(by_prefix["enc"]["a"], one_norm["enc"]["a"])


def test_rows_makes_every_row_a_block():
    rng = np.random.default_rng(0)
    table = jnp.asarray(rng.normal(size=(6, 4)) * 10.0 ** np.arange(-3, 3)[:, None], jnp.float32)
    updates = jnp.asarray(rng.normal(size=(6, 4)), jnp.float32)
    tx = clip_by_relative_global_norm(0.5, blocks={"table": ROWS, "rest": "rest"})
    rest = jnp.ones(3)
    out, state = clip(tx, {"table": updates, "rest": rest}, {"table": table, "rest": rest})
    clipped = 0
    for u, x, y in zip(np.float64(updates), np.float64(table), np.float64(out["table"])):
        factor = min(1.0, 0.5 * np.linalg.norm(x) / np.linalg.norm(u))
        np.testing.assert_allclose(y, factor * u, rtol=1e-6)
        clipped += factor < 1
    assert 0 < clipped < 6
    np.testing.assert_allclose(state.clipped_fraction["table"], clipped / 6, rtol=1e-6)
    np.testing.assert_allclose(state.param_norm["table"], np.linalg.norm(table), rtol=1e-6)
    assert state.clipped["table"]
    np.testing.assert_allclose(np.asarray(out["rest"]), 0.5, rtol=1e-6)


def test_leaves_without_gradient_count_for_neither_norm():
    params = random_tree(0)
    updates = random_tree(1) | {"b": None}
    out, state = clip(clip_by_relative_global_norm(0.1), updates, params)
    assert out["b"] is None
    np.testing.assert_allclose(
        state.param_norm, numpy_norm({"a": params["a"], "c": params["c"]}), rtol=1e-6
    )


def test_the_message_for_missing_params_is_that_of_optax():
    tx = clip_by_relative_global_norm(0.5)
    params = random_tree(0)
    reference = optax.add_decayed_weights(0.1)
    with pytest.raises(ValueError, match="requires the current value of parameters") as theirs:
        reference.update(params, reference.init(params), None)
    with pytest.raises(ValueError, match="requires the current value of parameters") as ours:
        tx.update(params, tx.init(params))
    assert str(ours.value).strip() == str(theirs.value).strip()


@pytest.mark.parametrize("ratio", [-1.0, float("nan"), "0.5", True])
def test_a_bad_ratio_is_refused(ratio):
    with pytest.raises(ValueError, match="max_ratio"):
        clip_by_relative_global_norm(ratio)


def test_integer_leaves_are_named():
    params = {"w": jnp.ones(3), "step": {"n": jnp.zeros([], jnp.int32)}}
    with pytest.raises(ValueError, match="step/n has dtype int32"):
        clip_by_relative_global_norm(0.5).init(params)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({"a": "x", "b": "x"}, "leaf c has no block label"),
        ({"a": "x", "b": "x", "c": "y", "d": "y"}, "block label at d matches no leaf"),
        ({"a": "x", "b": 1.5, "c": "y"}, "leaf b has the block label 1.5"),
        ({"a": "x", "b": "x", "c": ROWS}, "leaf c is a scalar"),
    ],
)
def test_bad_labels_are_named(blocks, message):
    with pytest.raises(ValueError, match=message):
        clip_by_relative_global_norm(0.5, blocks=blocks).init(random_tree(0))
