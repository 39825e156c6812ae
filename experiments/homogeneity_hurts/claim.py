"""Products of parameters make plain gradient descent diverge, or stand still."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from experiments import claims
from sibert_jax.report.figure import COLORS, MARKERS

SECONDS = {"minutes": 1.0, "hours": 2.0, "gpu": 2.0}
FLIPPED = 0.1  # share of wrong labels, so that the least loss is at a finite product
BEST_PRODUCT = math.log((1 - FLIPPED) / FLIPPED)
SCALARS = (2, 4, 8)
FRACTIONS = np.geomspace(0.25, 4, 129).astype(np.float32)  # of the predicted threshold
SHOWN = (0.1, 0.9, 1.1)  # whose curves are drawn
RATES = 10.0 ** np.arange(-7, 4.01, 0.25, dtype=np.float32)
FITTED = 0.01  # loss, of 0.5 at the start
METHODS = {
    "GD": "gradient descent on ABᵀ",
    "Adam": "Adam on ABᵀ",
    "normalized": "gradient descent on ABᵀ/‖ABᵀ‖",
}


def points(scale: str) -> list[dict]:
    """Products of 2, 4 and 8 scalars from several scales; three ways to fit a rank-one matrix."""
    starts = (
        (10.0, 1e2, 1e4) if scale == "minutes" else tuple(10.0 ** (i / 2) for i in range(1, 13))
    )
    products = [{"scalars": n, "start": x} for n in SCALARS for x in starts]
    return products + [{"method": m, "alpha": 100.0, "steps": 30_000} for m in METHODS]


def compute(point: dict) -> dict:
    """The smallest rate that diverges, or the best fit over all rates."""
    if "scalars" in point:
        return product(point["scalars"], point["start"])
    return factors(point["method"], point["alpha"], point["steps"])


def threshold(scalars: int, start: float) -> float:
    """The rate above which every step makes a product of equal scalars larger.

    η* = 2·X^(1/k − 1)/|L'(X)| for 2k scalars with X > X*: a step multiplies each of them by
    1 − η·L'(X)·X^(1−1/k), whose size is then above 1 (arXiv 2202.00980, section 2).
    """
    slope = 1 / (1 + math.exp(-start)) - (1 - FLIPPED)
    return 2 * start ** (2 / scalars - 1) / abs(slope)


def logistic(x: jax.Array) -> jax.Array:
    """The loss of the product of x, a tenth of the labels flipped."""
    product = jnp.prod(x)
    return (1 - FLIPPED) * jax.nn.softplus(-product) + FLIPPED * jax.nn.softplus(product)


@functools.partial(jax.jit, static_argnames="steps")
def descend(x0: jax.Array, rates: jax.Array, steps: int = 500) -> tuple[jax.Array, jax.Array]:
    """Final largest |x| and the products, of gradient descent at each rate: (R,), (steps, R)."""

    def step(x, _):
        x = x - rates[:, None] * jax.vmap(jax.grad(logistic))(x)
        return x, jnp.prod(x, axis=1)

    x, products = jax.lax.scan(step, jnp.tile(x0, (rates.size, 1)), length=steps)
    return jnp.max(jnp.abs(x), axis=1), products


def product(scalars: int, start: float) -> dict:
    """Gradient descent on 2k equal scalars at many rates around the predicted threshold."""
    predicted = threshold(scalars, start)
    x0 = jnp.full((scalars,), start ** (1 / scalars), jnp.float32)
    size, _ = descend(x0, jnp.asarray(predicted * FRACTIONS, jnp.float32))
    diverged = ~(np.asarray(size) < 10 * x0[0])
    curves = {}
    _, products = descend(x0, jnp.asarray([predicted * f for f in SHOWN], jnp.float32))
    for fraction, values in zip(SHOWN, np.asarray(products).T):
        curves[str(fraction)] = [start, *(float(f"{x:.4g}") for x in values[:40])]
    measured = predicted * float(FRACTIONS[np.argmax(diverged)]) if diverged.any() else None
    return {"predicted": predicted, "measured": measured, "curves": curves}


def squared_error(ab: tuple[jax.Array, jax.Array], *, normalized: bool) -> jax.Array:
    """Half the squared distance of ABᵀ, or of its direction, from the matrix of 0.5, norm 1."""
    matrix = jnp.outer(*ab)
    if normalized:
        matrix = matrix / jnp.linalg.norm(matrix)
    return jnp.sum(jnp.square(matrix - 0.5)) / 2


@functools.partial(jax.jit, static_argnames=("method", "steps"))
def fit(method: str, alpha: jax.Array, rates: jax.Array, steps: int) -> tuple[jax.Array, ...]:
    """Losses, ‖A‖ and ‖B‖ after each step from A = (α, 0), B = (1/α, 0): (steps, R) each."""
    loss = functools.partial(squared_error, normalized=method == "normalized")
    direction = optax.scale_by_adam() if method == "Adam" else optax.identity()
    zero = jnp.zeros_like(alpha)
    start = (jnp.stack([alpha, zero]), jnp.stack([1 / alpha, zero]))

    def at_rate(rate):
        def step(carry, _):
            ab, state = carry
            updates, state = direction.update(jax.grad(loss)(ab), state)
            ab = jax.tree.map(lambda x, u: x - rate * u, ab, updates)
            return (ab, state), (loss(ab), jnp.linalg.norm(ab[0]), jnp.linalg.norm(ab[1]))

        return jax.lax.scan(step, (start, direction.init(start)), length=steps)[1]

    return jax.vmap(at_rate, out_axes=1)(rates)


def factors(method: str, alpha: float, steps: int) -> dict:
    """The fit at every rate: the largest loss of the last tenth; and one rate's course.

    The course is that of the smallest rate that fits, or if none does, of the best one.
    """
    with jax.numpy_dtype_promotion("standard"):  # which optax counts on
        courses = fit(method, jnp.float32(alpha), jnp.asarray(RATES), steps)
    losses, *norms = map(np.asarray, courses)
    last = losses[-steps // 10 :].max(axis=0)
    final = np.where(np.isfinite(last), last, np.inf)
    best = int(np.argmin(final))
    course_of = int(np.argmax(final < FITTED)) if final[best] < FITTED else best
    shown = np.unique(np.geomspace(1, steps, 60).astype(int))
    course = {"loss_course": losses, "norm_a": norms[0], "norm_b": norms[1]}
    return {
        "shown_rate": float(RATES[course_of]),
        "best_rate": float(RATES[best]),
        "rates_that_fit": int(np.sum(final < FITTED)),
        "loss": float(final[best]),
        "losses": [[float(r), float(x)] for r, x in zip(RATES, final)],
        "steps": shown.tolist(),
        **{k: [float(f"{x:.4g}") for x in v[shown - 1, course_of]] for k, v in course.items()},
    }


def draw(figure: Figure, lines: Sequence[dict]) -> None:
    """Products around their threshold, thresholds over scales; the fits, and their norms."""
    figure.set_size_inches(16, 10)
    (courses, thresholds), (losses, norms) = figure.subplots(2, 2)
    products = [line for line in lines if "scalars" in line["point"]]
    shown = [p for p in products if p["point"] == {"scalars": 4, "start": 100.0}]
    curves = shown[0]["result"]["curves"] if shown else {}
    for (fraction, values), color in zip(curves.items(), COLORS):
        values = [value for value in values if value is not None]
        courses.plot(values, "o-", color=color, markersize=4, label=f"η = {fraction} η*")
    courses.axhline(
        BEST_PRODUCT, color="#8C8C8C", linestyle="--", label="X*, where the loss is least"
    )
    courses.set(
        yscale="log",
        xlim=(-0.5, 20),
        ylim=(1e-2, 1e9),
        xlabel="step",
        ylabel="product X of the scalars",
    )
    courses.set_title("Four scalars, logistic loss, from X = 100", loc="left")
    for count, color, marker in zip(SCALARS, COLORS, MARKERS):
        found = [line for line in products if line["point"]["scalars"] == count]
        if not found:
            continue
        starts = [line["point"]["start"] for line in found]
        measured = [line["result"]["measured"] for line in found]
        line = np.geomspace(min(starts) / 1.5, max(starts) * 1.5, 200)
        thresholds.plot(line, [threshold(count, x) for x in line], "--", color=color, linewidth=1.5)
        style = {"color": color, "markersize": 8, "label": f"{count} scalars"}
        thresholds.plot(starts, measured, marker, **style)
    thresholds.set(xscale="log", yscale="log", xlabel="initial product X₀")
    thresholds.set_ylabel("smallest learning rate that diverges")
    thresholds.set_title("Divergence over scales; dashed: η* = 2·X₀^(1/k−1)/|L'(X₀)|", loc="left")
    for line, color in zip([line for line in lines if "method" in line["point"]], COLORS):
        result, method = line["result"], line["point"]["method"]
        label = f"{METHODS[method]}, η = {result['shown_rate']:.2g}"
        losses.plot(
            result["steps"],
            np.maximum(result["loss_course"], 1e-14),
            color=color,
            linewidth=2,
            label=label,
        )
        norms.plot(
            result["steps"], result["norm_a"], color=color, linewidth=2, label=f"{method}: ‖A‖"
        )
        norms.plot(
            result["steps"], result["norm_b"], ":", color=color, linewidth=2, label=f"{method}: ‖B‖"
        )
    losses.set(xscale="log", yscale="log", xlabel="step", ylabel="½‖ABᵀ − Y‖²")
    losses.set_title("Rank-one fit from A = (100, 0), B = (0.01, 0)", loc="left")
    norms.set(xscale="log", yscale="log", xlabel="step", ylabel="norm of a factor")
    norms.set_ylim(1e-6, 1e3)
    norms.set_title("Norms of the factors", loc="left")
    claims.legend(norms, ncols=3, loc="lower center")
    for axis in (courses, thresholds, losses):
        claims.legend(axis)


def table(lines: Sequence[dict]) -> str:
    """Thresholds, and the best fits."""
    rows = []
    for line in lines:
        point, result = line["point"], line["result"]
        if "scalars" in point:
            ratio = result["measured"] and result["measured"] / result["predicted"]
            numbers = [f"{result['predicted']:.3g}", f"{result['measured']:.3g}", f"{ratio:.2f}"]
            rows.append([point["scalars"], f"{point['start']:.3g}", *numbers])
    header = ("scalars", "initial product", "predicted threshold", "measured", "ratio")
    fits = []
    for line in lines:
        if "method" in line["point"]:
            r, name = line["result"], METHODS[line["point"]["method"]]
            count = f"{r['rates_that_fit']} of {len(r['losses'])}"
            fits.append([name, f"{r['best_rate']:.2g}", f"{r['loss']:.2g}", count])
    header_of_fits = (
        "method",
        "best learning rate",
        "largest loss of the last tenth",
        f"rates below {FITTED}",
    )
    return f"{claims.markdown(header, rows)}\n{claims.markdown(header_of_fits, fits)}"
