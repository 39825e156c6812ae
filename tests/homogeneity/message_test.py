"""A message points at the user's own line, whatever library or cache lies in between."""

import inspect
import re

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from sibert_jax.homogeneity import analyse

X = jax.random.normal(jax.random.key(0), (3, 4))
GRAPH, NNX_PARAMS = nnx.split(nnx.LayerNorm(4, rngs=nnx.Rngs(0)))


def line_of(function, text):
    lines, first = inspect.getsourcelines(function)
    (line,) = [first + i for i, line in enumerate(lines) if text in line]
    return line


def assert_points_at(found, function, text):
    assert (found.location.file, found.location.line) == (__file__, line_of(function, text)), found


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        h = nn.Dense(4, name="inner")(x)
        return nn.LayerNorm(name="norm")(h)  # here


def test_flax_also_has_a_module_path_and_a_library_line():
    params = Net().init(jax.random.key(0), X)
    mask = {"params": {"inner": True, "norm": False}}
    found = analyse(Net().apply, params, X).obstruction(mask)
    assert_points_at(found, Net, "# here")
    assert found.library_location.file.endswith("flax/linen/normalization.py")
    assert (found.module, found.subject) == ("Net/norm", "params/inner")
    assert "degree 2 in params/inner and degree 0 (constant 1e-06)" in str(found)


def nnx_norm(p, x):
    h = x @ p["w"]
    return nnx.merge(GRAPH, p["norm"])(h)  # here


def equinox_norm(w, x):
    h = x @ w
    return jax.vmap(eqx.nn.LayerNorm(4))(h)  # here


def cached_gelu(w, x):
    return jax.nn.gelu(w)  # here


def test_points_at_the_line_that_calls_a_library():
    jax.nn.gelu(X)  # its jaxpr is cached with this line
    tree = {"w": X.T @ X, "norm": NNX_PARAMS}
    only_w = {"w": True, "norm": False}
    cases = (nnx_norm, tree, only_w), (equinox_norm, X.T @ X, True), (cached_gelu, X, True)
    for fn, params, mask in cases:
        assert_points_at(analyse(fn, params, X).obstruction(mask), fn, "# here")


def test_library_function_by_itself_has_no_line():
    params = nn.LayerNorm().init(jax.random.key(0), X)
    found = analyse(nn.LayerNorm().apply, params, X).obstruction()
    assert (found.primitive, found.location) == ("output", None)
    assert str(found).startswith("the function itself: output of degree 1 in params")


def test_line_inside_scans_conditionals_and_derivatives():
    def loss(w, x):
        def body(h, _):
            tanh = lambda h: jnp.tanh(h @ w)  # noqa: E731 # here
            return jax.lax.cond(x[0, 0] > 0, tanh, lambda h: h * 0, h), None

        return jnp.sum(jax.lax.scan(jax.checkpoint(body), x, None, length=3)[0] ** 2)

    for fn in (loss, jax.grad(loss), jax.jit(jax.value_and_grad(loss))):
        assert_points_at(analyse(fn, X.T @ X, X).obstruction(), loss, "# here")


def test_equation_is_written_in_the_leaves_names():
    report = analyse(lambda p: p["a"] * p["b"] + p["c"], dict.fromkeys("abc", X))
    found = report.obstruction()
    assert found.equation in ("-a - b + c = 0", "a + b - c = 0")
    assert found.degrees == (2, 1)
    assert report.obstruction({"a": True, "b": False, "c": True}).primitive == "output"


@pytest.mark.parametrize(
    ("fn", "repair"),
    [
        (lambda w: w + 1e-6, "an added constant does not scale.*make it relative"),
        (jnp.tanh, "positively homogeneous"),
        (lambda w: jnp.where(w > 0, w, 1), "discard the result"),
        (lambda w: jnp.concatenate([w, w**2]), "one degree"),
        (lambda w: w, "normalize the result"),
        (lambda w: jnp.linalg.det(jnp.diag(jnp.tile(w, 2))), "qr"),
        (lambda w: jnp.histogram(w)[1], "`histogram` brings in the constant itself"),
        (lambda w: jnp.where(w > 0.1, 1, 2), "compare tensors of one degree"),
    ],
)
def test_repair_fits_the_cause(fn, repair):
    found = analyse(fn, jnp.array([0.2, 0.3, 0.4])).obstruction().repair
    assert re.search(repair, found)
