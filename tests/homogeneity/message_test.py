"""Where a message points: the user's own line, whatever library or cache lies in between."""

import inspect

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from sibert_jax.homogeneity import analyse

X = jax.random.normal(jax.random.key(0), (3, 4))


def line_of(function, text):
    lines, first = inspect.getsourcelines(function)
    (line,) = [first + i for i, line in enumerate(lines) if text in line]
    return line


def assert_points_at(found, function, text):
    assert (found.location.file, found.location.line) == (__file__, line_of(function, text)), found


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        h = nn.Dense(4, name="inner")(x)
        h = nn.LayerNorm(name="norm")(h)  # here
        return nn.Dense(4, name="outer")(h)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        return Block(name="block")(x)


def test_flax_the_line_that_calls_the_layer_the_library_line_and_the_module_path():
    params = Net().init(jax.random.key(0), X)
    found = analyse(Net().apply, params, X).obstruction(
        {"params": {"block": {"inner": True, "norm": False, "outer": False}}}
    )
    assert_points_at(found, Block, "# here")
    assert found.library_location.file.endswith("flax/linen/normalization.py")
    assert found.module == "Net/block/norm"
    assert found.subject == "params/block/inner"
    assert found.constants == (None, pytest.approx(1e-6))
    assert "degree 2 in params/block/inner and degree 0 (constant 1e-06)" in str(found)


def test_flax_nnx():
    graph, params = nnx.split(nnx.LayerNorm(4, rngs=nnx.Rngs(0)))

    def fn(p, x):
        h = x @ p["w"]
        return nnx.merge(graph, p["norm"])(h)  # here

    mask = {"w": True, "norm": False}
    found = analyse(fn, {"w": X.T @ X, "norm": params}, X).obstruction(mask)
    assert_points_at(found, fn, "# here")


def test_equinox():
    norm = eqx.nn.LayerNorm(4)

    def fn(w, x):
        h = x @ w
        return jax.vmap(norm)(h)  # here

    found = analyse(fn, X.T @ X, X).obstruction()
    assert_points_at(found, fn, "# here")
    assert found.library_location.file.endswith("equinox/nn/_normalisation.py")


def test_a_library_function_given_directly_points_into_the_library():
    params = nn.LayerNorm().init(jax.random.key(0), X)
    fn = nn.LayerNorm().apply
    found = analyse(lambda x, params: fn(params, x), X, params).obstruction()
    assert found.location.file == __file__
    found = analyse(fn, params, X).obstruction()
    assert found.primitive == "output"
    assert found.location is None
    assert str(found).startswith("the function itself: output of degree 1 in params")


def test_a_jitted_library_function_that_was_traced_by_someone_else_before():
    jax.nn.gelu(X)  # its jaxpr is cached with this line

    def fn(w):
        return jax.nn.gelu(w)  # here

    assert_points_at(analyse(fn, X).obstruction(), fn, "# here")


def test_the_line_inside_scans_conditionals_and_derivatives():
    def loss(w, x):
        def body(h, _):
            h = jax.lax.cond(
                x[0, 0] > 0,
                lambda h: jnp.tanh(h @ w),  # here
                lambda h: h * 0,
                h,
            )
            return h, None

        return jnp.sum(jax.lax.scan(jax.checkpoint(body), x, None, length=3)[0] ** 2)

    for fn in (loss, jax.grad(loss), jax.jit(jax.value_and_grad(loss))):
        assert_points_at(analyse(fn, X.T @ X, X).obstruction(), loss, "# here")


def test_repairs_fit_the_cause():
    def repair(fn):
        return analyse(fn, X).obstruction().repair

    assert "make it relative" in repair(lambda w: w + 1e-6)
    assert "positively homogeneous" in repair(jnp.tanh)
    assert "degree matches" in repair(lambda w: w + w**2)
    assert "discard the result" in repair(lambda w: jnp.where(w > 0, w, 1))
    assert "one degree" in repair(lambda w: jnp.concatenate([w, w**2]))
    assert "normalize the result" in repair(lambda w: w)
    assert "qr" in repair(lambda w: jnp.linalg.det(w.T @ w))


def test_the_equation_is_written_in_the_leaves_names():
    report = analyse(lambda p: p["a"] * p["b"] + p["c"], dict.fromkeys("abc", X))
    found = report.obstruction()
    assert found.equation in ("-a - b + c = 0", "a + b - c = 0")
    assert found.degrees == (2, 1)
    assert report.obstruction({"a": True, "b": False, "c": True}).primitive == "output"


@pytest.mark.parametrize(
    ("fn", "repair"),
    [
        (lambda w: w + 1e-6, "an added constant does not scale"),
        (lambda w: jnp.add(w, 1e-6), "an added constant does not scale"),
        (lambda w: jnp.clip(w, 0.1, 2.0), "an added constant does not scale"),
        (lambda w: w**0.01 + 1, "an added constant does not scale"),
        (lambda w: jnp.histogram(w)[1], "`histogram` brings in the constant itself"),
        (lambda w: jnp.isclose(w, 2 * w), "`isclose` brings in the constant itself"),
        (lambda w: jax.nn.relu6(w), "`relu6` brings in the constant itself"),
        (lambda w: jax.nn.hard_tanh(w), "`hard_tanh` brings in the constant itself"),
        (lambda w: jax.nn.standardize(w), "`standardize` brings in the constant itself"),
        (lambda w: jax.scipy.special.logit(w), "`logit` brings in the constant itself"),
        (lambda w: jnp.where(w > 0.1, 1, 2), "compare tensors of one degree"),
        (lambda w: jnp.digitize(w, jnp.arange(3.0)), "compare tensors of one degree"),
        (lambda w: jnp.searchsorted(jnp.arange(3.0), w), "compare tensors of one degree"),
        (lambda w: jnp.interp(w, jnp.arange(3.0), jnp.arange(3.0)), "compare tensors of one"),
    ],
)
def test_the_advice_fits_what_the_line_does(fn, repair):
    assert repair in analyse(fn, jnp.array([0.2, 0.3, 0.4])).obstruction().repair
