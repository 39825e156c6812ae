"""Every way to break the paper's encoder: the message points at the very line."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.homogeneity import analyse, assert_scale_invariant

WIDTH, TOKENS, VOCAB = 8, 5, 11


def norm(x, fault):
    mean = jnp.mean(x, -1, keepdims=True)
    var = jnp.mean(jnp.square(x - mean), -1, keepdims=True)
    if fault == "norm epsilon":
        var = var + 1e-12  # fault: norm epsilon
    if fault == "norm floor":
        var = jnp.maximum(var, 1e-5)  # fault: norm floor
    if fault == "kept guard":
        return x / jnp.where(var > 0, var, 1)  # fault: kept guard
    return jnp.where(var > 0, (x - mean) / jnp.sqrt(jnp.where(var > 0, var, 1)), 0)


def attention(p, u, valid, fault):
    scores = (u @ p["q"]) @ (u @ p["k"]).T
    if fault == "additive mask":
        scores = scores + jnp.where(valid[None], 0, -1e9)  # fault: additive mask
    if fault == "softmax":
        weights = jax.nn.softmax(scores)  # fault: softmax
    else:
        r = jnp.where(valid[None], jax.nn.relu(scores), 0)
        z = jnp.sum(r, -1, keepdims=True)
        if fault == "attention epsilon 1e-6":
            weights = r / (z + 1e-6)  # fault: attention epsilon 1e-6
        else:
            weights = jnp.where(z > 0, r / jnp.where(z > 0, z, 1), 1 / TOKENS)
    return weights @ (u @ p["v"]) @ p["o"]


def encoder(p, tokens, valid, fault):
    x = p["table"][tokens] + p["position"]
    if fault == "sinusoids":
        x = x + jnp.sin(jnp.arange(TOKENS, dtype=jnp.float32))[:, None]  # fault: sinusoids
    x = norm(x, None) * p["gain"][None] + p["bias"][None]
    if fault != "stem of degree 1":
        x = x @ p["stem"]
    u = norm(x, fault)
    if fault == "gain on the pre-norm":
        u = u * p["gain"][None]
    branch = attention(p, u, valid, fault)
    x = x + branch  # fault: stem of degree 1 # fault: gain on the pre-norm
    u = norm(x, None)
    h = u @ p["up"] + p["up_bias"][None]
    if fault == "gelu":
        h = jax.nn.gelu(h)  # fault: gelu
    y = jax.nn.relu(h) @ p["down"]
    if fault == "bias on the second linear map":
        y = y + p["gain"][None]  # fault: bias on the second linear map
    x = x + y
    if fault == "tied head":
        logits = norm(x, None) @ p["table"].T
        return jax.nn.logsumexp(logits, axis=-1)  # fault: tied head
    return norm(x, None)


FAULTS = {
    # name: (primitive, degrees of its operands when all leaves are scaled jointly)
    "norm epsilon": ("add", (4, 0)),  # variance of a degree-2 tensor, constant
    "norm floor": ("max", (4, 0)),
    "kept guard": ("select_n", (4, 0)),
    "additive mask": ("add", (2, 0)),  # scores have degree 2
    "softmax": ("exp", (2,)),
    "attention epsilon 1e-6": ("add", (2, 0)),
    "sinusoids": ("add", (1, 0)),
    "stem of degree 1": ("add", (1, 2)),  # stream, branch
    "gain on the pre-norm": ("add", (2, 3)),
    "gelu": ("add", (1, 3)),  # its tanh form adds h³ to h
    "bias on the second linear map": ("add", (2, 1)),
    "tied head": ("exp", (1,)),
}


RNG = np.random.default_rng(0)
SHAPES = dict.fromkeys(("stem", "q", "k", "v", "o", "up", "down"), (WIDTH, WIDTH))
SHAPES |= dict.fromkeys(("gain", "bias", "up_bias"), (WIDTH,))
SHAPES |= {"table": (VOCAB, WIDTH), "position": (TOKENS, WIDTH)}
PARAMS = {name: jnp.asarray(RNG.normal(size=s), jnp.float32) for name, s in SHAPES.items()}
INPUTS = jnp.arange(TOKENS), jnp.arange(TOKENS) < 4


def broken(fault):
    return lambda p: encoder(p, *INPUTS, fault)


def line_of(fault):
    for function in (norm, attention, encoder):
        lines, first = inspect.getsourcelines(function)
        for i, line in enumerate(lines):
            if f"# fault: {fault}\n" in line or f"# fault: {fault} " in line:
                return first + i
    raise AssertionError(f"no line is marked as the fault {fault!r}")


def test_encoder_without_a_fault_is_invariant(certify):
    report = certify(broken(None), PARAMS)
    assert report.is_invariant()
    assert report.obstruction() is None
    assert_scale_invariant(broken(None), PARAMS)
    with pytest.raises(ValueError, match=r"(?s)not certified .*\(constant 1e-06\).*make it rel"):
        assert_scale_invariant(broken("attention epsilon 1e-6"), PARAMS)


@pytest.mark.parametrize("fault", FAULTS)
def test_message_points_at_the_line_that_breaks_invariance(fault):
    """Also in the gradient of a jitted loss, whose jaxpr is used again."""
    report = analyse(broken(fault), PARAMS)
    assert not report.is_invariant()
    found = report.obstruction()
    assert (found.primitive, found.degrees) == FAULTS[fault]
    loss = jax.jit(lambda p: jnp.sum(jnp.sin(broken(fault)(p))))
    loss.trace(PARAMS)
    for message in (found, analyse(jax.grad(loss), PARAMS).obstruction()):
        assert message.location.file == __file__
        assert message.location.line == line_of(fault), str(message)


def test_message_names_the_part_of_the_tree_that_is_scaled():
    tree = {"encoder": PARAMS, "head": {"w": PARAMS["q"]}}
    report = analyse(lambda p: broken("softmax")(p["encoder"]) @ p["head"]["w"], tree)
    found = report.obstruction({"encoder": True, "head": False})
    assert "degree 2 in encoder" in str(found)
    assert found.subject == "encoder"
