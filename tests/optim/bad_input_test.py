"""Every wrong argument of `sibert_jax.optim` raises one sentence that names it."""

import jax.numpy as jnp
import optax
import pytest

from sibert_jax.optim import (
    ROWS,
    Rows,
    clip_by_relative_global_norm,
    clip_by_relative_unit_norm,
    equilibrium,
    equilibrium_sgd,
    hyperball,
    make_schedule,
    partition_by_invariance,
    scale_by_psgd_kron,
    scale_by_psgd_low_rank,
    scale_by_psgd_matrix_free,
    scale_by_sinkhorn,
    scale_by_unit_rms,
    scale_by_whitening,
    scale_invariant_sgd,
    scale_to_equilibrium,
    sgd_sai,
    sign_descent,
    track_rotation,
)

from .conftest import random_tree

SGD = optax.sgd(0.1)
PARAMS = random_tree(0, shapes=(("a", (3, 5)), ("b", (4,)), ("c", ())))
HALVES = {"encoder": {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}, "head": {"w": jnp.ones(3)}}


def schedule(name="constant", **arguments):
    return lambda: make_schedule(name, **{"peak_value": 1.0, "num_steps": 10} | arguments)


ARGUMENTS = [
    *((lambda r=r: clip_by_relative_global_norm(r), "max_ratio") for r in (-1.0, float("nan"))),
    (lambda: clip_by_relative_global_norm("0.5"), "max_ratio"),
    (lambda: scale_invariant_sgd(-0.1, 0.1), "learning_rate"),
    (lambda: scale_invariant_sgd(0.1, -0.1), "weight_decay"),
    (lambda: scale_invariant_sgd(0.1, 0.1, 1.0), "clip_factor"),
    (lambda: hyperball(SGD, -0.1), "learning_rate"),
    (lambda: scale_by_unit_rms("rows"), "units must be 'input' or 'output', found 'rows'"),
    (lambda: scale_by_unit_rms(power=1.5), "power must be >= 0 and <= 1, found 1.5"),
    (lambda: scale_by_sinkhorn(0), "num_passes"),
    (lambda: scale_by_whitening(2.5), "num_steps"),
    (lambda: clip_by_relative_unit_norm(-0.1), "max_ratio"),
    (lambda: sgd_sai(momentum=1.0), "momentum"),
    (lambda: sign_descent(0), "num_steps must be a whole number >= 1, found 0"),
    (lambda: sign_descent(5, -1.0), "learning_rate"),
    (lambda: sgd_sai(eps=0.0), "eps"),
    (lambda: sgd_sai(scaling="paper"), "one of snr, snr_max_normalized, sqrt_size"),
    (lambda: scale_by_psgd_kron(0.0), "preconditioner_learning_rate"),
    (lambda: scale_by_psgd_kron(mode="hessian"), "mode must be 'whitening' or 'newton'"),
    (lambda: scale_by_psgd_kron(update_form="EQ"), "'inverse_free' or 'triangular'"),
    (lambda: scale_by_psgd_kron(update_every=1.5), "update_every must be a whole number"),
    (lambda: scale_by_psgd_low_rank(rank=2.5), "rank must be a whole number >= 1, found 2.5"),
    (lambda: scale_by_psgd_matrix_free(update_every="2"), "found '2'"),
    (lambda: scale_by_psgd_matrix_free(shape="full"), "shape must be 'x' or 'diagonal'"),
    (lambda: equilibrium.recovery_steps(0.1, 0.1, 0.0), "scale"),
    (lambda: equilibrium.recovery_steps(0.1, 0.1, 0.5, clip_factor=1.0), "clip_factor"),
    (lambda: equilibrium.rotation_per_step(0.1, 0.1, 0.9, "torch"), "convention"),
    (lambda: track_rotation(SGD, blocks=ROWS).init(random_tree(0)), "ROWS is no label"),
    (lambda: equilibrium_sgd(1.0, 1.0), "weight_decay"),
    (lambda: equilibrium_sgd(1.0, 0.0), "weight_decay"),
    (lambda: scale_to_equilibrium(1.0), "eta_lambda"),
    (lambda: equilibrium_sgd(1.0, 0.1, measure_steps=0), "measure_steps"),
    (lambda: equilibrium_sgd(1.0, 0.1, memory=0), "memory"),
    (schedule("cosin"), "'cosin'.*constant, piecewise, linear, cosine, warmup"),
    (schedule(peak_value=-1.0), "peak_value"),
    *((schedule(num_steps=n), "num_steps must be a whole number") for n in (0, 10.5, True)),
    (schedule(warmup_steps=10), "warmup_steps must be a whole number >= 0 and < 10, found 10"),
    (schedule("piecewise", warmup_steps=6), "reaches the first drop"),
    (schedule("warmup_stable_decay", decay_steps=1.5), "decay_steps must be a whole number"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "words"), ARGUMENTS)
def test_wrong_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ({"a": "x", "b": "x"}, "leaf c has no block label"),
        ({"a": None, "b": "x", "c": "x"}, "leaf a has no block label"),
        ({"a": "x", "b": "x", "c": "y", "d": "y"}, "block label at d matches no leaf"),
        ({"a": "x", "b": 1.5, "c": "y"}, "leaf b has the block label 1.5"),
        ({"a": ("x", 0), "b": "x", "c": "x"}, "leaf a has more than one block label"),
        ({"a": 1, "b": "1", "c": 2}, "block labels 1 and '1' are both written 1"),
        ({"a": "b", "b": ROWS, "c": "x"}, "'b' is also that of a block of rows"),
        ({"a": Rows("r"), "b": Rows("r"), "c": "x"}, "leaf b has .* rows, and the block 'r'"),
        ({"a": "x", "b": "x", "c": ROWS}, "leaf c is a scalar"),
    ],
)  # fmt: skip
def test_wrong_block_labels_are_named(blocks, words):
    for tx in (
        clip_by_relative_global_norm(0.5, blocks=blocks),
        hyperball(SGD, 0.1, blocks=blocks),
    ):
        with pytest.raises(ValueError, match=words):
            tx.init(PARAMS)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        ({"encoder": {"w": True}, "head": False}, "leaf encoder/b has no entry"),
        ({"encoder": True, "head": False, "tail": True}, "at tail matches no leaf"),
        ({"encoder": 1.0, "head": False}, "1.0 for leaf encoder/b"),
        ({"encoder": True, "head": True}, "no leaf in the head"),
        ({"encoder": False, "head": False}, "no leaf scale invariant"),
    ],
)
def test_mask_that_does_not_split_the_tree_is_refused(mask, words):
    with pytest.raises(ValueError, match=words):
        partition_by_invariance(SGD, SGD, mask).init(HALVES)


@pytest.mark.parametrize(
    "make", [scale_by_psgd_kron, scale_by_psgd_low_rank, scale_by_psgd_matrix_free]
)
def test_newton_mode_asks_for_vector_and_product(make):
    two, three = {"w": jnp.ones(2)}, {"w": jnp.ones(3)}
    tx = make(mode="newton")
    for extra_args, words in (
        ({"vector": two}, "needs `hvp`"),
        ({"hvp": two}, "needs `vector`"),
        ({"vector": two, "hvp": {"b": two["w"]}}, "structure than `hvp`"),
        ({"vector": three, "hvp": three}, r"has shape \(3,\)"),
    ):
        with pytest.raises(ValueError, match=words):
            tx.update(two, tx.init(two), **extra_args)
