"""Norm, entry time and stationarity obey theorems 4.1, 4.5 and 4.8."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from experiments import claims
from experiments.theory.simulate import CHUNK, clipped_mean, mean_square, simulate
from sibert_jax.optim import equilibrium
from sibert_jax.report.figure import COLORS, MARKERS

SECONDS = {"minutes": 2.0, "hours": 10.0, "gpu": 10.0}
ETA = 0.05  # any: only ηλ matters (lemma 2.4)
STARTS = (0.01, 1.0, 100.0)  # initial norms over the equilibrium norm
DELTA = 0.01  # of condition 4.4
RHO = 1.0
NOISES = {"constant": "‖g‖ constant", "lognormal": "‖g‖ lognormal", "t3": "‖g‖ Student's t₃"}
CASES = {
    "minutes": (("constant", None), ("lognormal", None), ("lognormal", 4.0)),
    "hours": tuple((noise, clip) for noise in NOISES for clip in (None, 2.0, 4.0)),
}
PRODUCTS = {"minutes": (1e-2,), "hours": (8e-3, 2e-3)}  # ηλ of the norms
SLOW = {"minutes": (4e-3, 1e-3), "hours": (1e-2, 1e-3, 1e-4)}  # and of the gradients


def points(scale: str) -> list[dict]:
    """Norms under three kinds of noise, with and without a clip; gradients."""
    scale = "minutes" if scale == "minutes" else "hours"
    replicas = 8 if scale == "minutes" else 16
    norms = [
        {"part": "norm", "noise": noise, "clip": clip, "eta_lambda": product, "replicas": replicas}
        for product in PRODUCTS[scale]
        for noise, clip in CASES[scale]
    ]
    gradients = [
        {"part": part, "eta_lambda": product, "replicas": replicas}
        for part in ("descent", "noisy")
        for product in SLOW[scale]
    ]
    return norms + gradients


def compute(point: dict) -> dict:
    """What was measured, and what the theorem says."""
    if point["part"] == "norm":
        return norm(point["noise"], point["clip"], point["eta_lambda"], point["replicas"])
    return gradient(point["part"] == "noisy", point["eta_lambda"], point["replicas"])


def whole(steps: float) -> int:
    """Steps, up to whole chunks."""
    return math.ceil(steps / CHUNK) * CHUNK


def entry_steps(product: float, low: float, largest: float, start: float) -> float:
    """T₁ of theorem 4.5 for s_lo² = low, M² = largest and ‖x₀‖⁴/η² = start."""
    first = math.log(largest * product / low) + abs(math.log(2 * math.e**4 * largest / start))
    return max(first, 8) / (4 * product)


def norm(noise: str, clip: float | None, product: float, replicas: int) -> dict:
    """(2λ/η)‖x‖⁴ from three initial norms, against its fixed point: A = 0, pure noise."""
    lam, square = product / ETA, mean_square(noise)
    mu, alpha = clipped_mean(noise, clip) if clip else (square, None)
    predicted = mu / (1 - product / 2)
    steady = float(equilibrium.equilibrium_norm(ETA, lam, math.sqrt(mu)))
    norms = np.repeat(steady * np.array(STARTS), replicas)
    steps = whole(15 / product)
    rows = [2 * lam / ETA * n**2 for n, _ in simulate(noise, clip, ETA, lam, norms, steps)]
    r2 = np.concatenate(rows).reshape(steps, len(STARTS), replicas) / predicted
    near = (r2 >= 0.5) & (r2 <= 2)
    recovery = np.median(np.where(near.any(axis=0), near.argmax(axis=0), np.nan), axis=1)
    sharp = [equilibrium.recovery_steps(ETA, lam, s, clip_factor=clip) for s in STARTS]
    if clip:  # without the O(1) of T', whose constant is not stated
        low, high = 0.5, 2.0
        entry = max(4 * abs(math.log(s)) for s in STARTS) / (alpha * product)
        holds = None
    else:
        low, high = 0.5 * square / predicted, 4 * square / predicted
        largest = 1.0 if noise == "constant" else math.inf  # M² = E[s²] where s is constant
        holds = largest < math.inf and square / largest >= 3 * math.exp(4 * product) * math.sqrt(
            product * math.log(2 * steps**2 / DELTA)
        )
        starts = [(s * steady) ** 4 / ETA**2 for s in STARTS]
        entry = max(entry_steps(product, square, 1.0, s) for s in starts) if holds else None
    tail = r2[steps // 2 :]
    shown = np.linspace(0, steps - 1, 80).astype(int)
    return {
        "predicted": predicted,
        "measured": float(tail.mean()) * predicted,
        "ratio": float(tail.mean()),
        "band": [low, high],
        "in_band": float(((tail >= low) & (tail <= high)).mean()),
        "extremes": [float(tail.min()), float(tail.max())],
        "condition_4.4": holds,
        "entry_bound": entry,
        "alpha": alpha,
        "recovery": recovery.tolist(),
        "recovery_predicted": sharp,
        "steps": shown.tolist(),
        "median": [[float(f"{x:.4g}") for x in row] for row in np.median(r2, axis=2)[shown].T],
    }


def gradient(noisy: bool, product: float, replicas: int) -> dict:
    """‖∇L(x̄)‖² of ½·x̄ᵀAx̄ with ρ = 1: its least value (4.1), or with noise its mean (4.5)."""
    lam, root = product / ETA, math.sqrt(product)
    if noisy:
        low = mean_square("constant")
        high = low + RHO**2 / 4
        start = float(equilibrium.equilibrium_norm(ETA, lam, math.sqrt(low)))
        entry = entry_steps(product, low, (1 + RHO / 2) ** 2, start**4 / ETA**2)
        steps = whole(2 * entry)
        bound = math.pi**2 * RHO * math.sqrt(high) / ((steps - entry) * math.sqrt(2) * root)
        bound += 2 * math.sqrt(2) * root * RHO * high**1.5 / low
        norms = np.full(len(STARTS) * replicas, start)
    else:
        unit = math.pi * math.sqrt(RHO * ETA)
        norms = np.repeat(unit * np.array(STARTS), replicas)
        bound = 8 * math.pi**4 * RHO**2 * product
        entry = (2 * math.log(max(STARTS)) + 3) / (2 * product)  # T₀ of the farthest start
        steps = whole(entry)
    total, least, done = 0.0, np.inf, 0
    reached = np.full(norms.size, np.inf)  # the first step at which the bound is met
    chunks = simulate(
        "constant", None, ETA, lam, norms, steps, spread=RHO, scale=1.0 if noisy else 0.0
    )
    for _, slopes in chunks:
        times = done + np.arange(CHUNK)
        total += float(slopes[times >= entry].mean(axis=1).sum()) if noisy else 0.0
        least = np.minimum(least, slopes[times <= entry].min(axis=0, initial=np.inf))
        met = np.where(slopes <= bound, times[:, None], np.inf).min(axis=0)
        reached, done = np.minimum(reached, met), done + CHUNK
    measured = total / (steps - math.ceil(entry)) if noisy else float(np.max(least))
    return {
        "measured": measured,
        "bound": bound,
        "ratio": measured / bound,
        "says_something": bound < RHO**2 / 4,  # less than the gradient can be at all
        "reached": None if noisy else float(reached.max()),
        "entry_bound": entry,
    }


def draw(figure: Figure, lines: Sequence[dict]) -> None:
    """Norms over time; fixed points, recovery and gradients, measured against predicted."""
    figure.set_size_inches(16, 10)
    axes = figure.subplot_mosaic("AABBCC;DDEEFF")
    norms = [line for line in lines if line["point"]["part"] == "norm"]
    product = norms[0]["point"]["eta_lambda"] if norms else math.nan
    shown = [line for line in norms if line["point"]["eta_lambda"] == product]
    panels = {
        "A": ("Constant gradient norm, no clip", "constant", None),
        "B": ("Lognormal gradient norm, no clip", "lognormal", None),
        "C": ("Lognormal gradient norm, C = 4", "lognormal", 4.0),
    }
    for name, (title, noise, clip) in panels.items():
        axis, found = axes[name], [p for p in shown if _case(p) == (noise, clip)]
        for line in found:
            result = line["result"]
            axis.axhspan(*result["band"], color="#E6E6E6", label="bounds of the theorem")
            axis.axhline(1, color="#8C8C8C", linestyle="--", label="fixed point")
            for start, course, color in zip(STARTS, result["median"], COLORS):
                label = f"from {start:g} × the equilibrium norm"
                axis.plot(result["steps"], course, color=color, linewidth=2, label=label)
        axis.set(yscale="log", ylim=(1e-4, 1e5), xlabel=f"step (ηλ = {product:g})")
        axis.set_ylabel("(2λ/η)‖x‖⁴ / predicted, median")
        axis.set_title(title, loc="left")
    claims.legend(axes["A"])
    for (noise, name), color in zip(NOISES.items(), COLORS):
        for clip, marker in zip((None, 2.0, 4.0), MARKERS):
            found = [line["result"] for line in norms if _case(line) == (noise, clip)]
            label = name + (f", C = {clip:g}" if clip else ", no clip")
            style = {"color": color, "markersize": 8, "linestyle": "", "marker": marker}
            if found:
                predicted = [r["predicted"] for r in found]
                axes["D"].plot(predicted, [r["measured"] for r in found], label=label, **style)
            for r in found if clip or noise == "constant" else ():
                axes["E"].plot(r["recovery_predicted"], r["recovery"], **style)
    axes["D"].set(xlabel="predicted: σ² or μ_C", ylabel="measured: mean of (2λ/η)‖x‖⁴")
    axes["D"].set_title("Fixed point; line: as predicted", loc="left")
    claims.legend(axes["D"], fontsize=9)
    axes["E"].set(xlabel="predicted steps", ylabel="measured steps, median")
    axes["E"].set_title("Steps back to equilibrium from 0.01 × and 100 ×", loc="left")
    for axis in (axes["D"], axes["E"]):
        axis.set(xscale="log", yscale="log")
        low, high = axis.get_xlim()
        axis.plot([low, high], [low, high], "--", color="#8C8C8C", zorder=0)
        for scale in (axis.xaxis, axis.yaxis):
            scale.set_major_locator(LogLocator(subs=(1, 2, 5)))
            scale.set_major_formatter("{x:g}")
            scale.set_minor_locator(NullLocator())
    kinds = {"descent": "least, gradient descent (4.1)", "noisy": "mean, SGD (4.5)"}
    for (part, name), color, marker in zip(kinds.items(), COLORS, MARKERS):
        found = [line for line in lines if line["point"]["part"] == part]
        products = [line["point"]["eta_lambda"] for line in found]
        for key, style in (("measured", marker + "-"), ("bound", marker + ":")):
            values = [line["result"][key] or np.nan for line in found]  # 0: below rounding
            axes["F"].plot(products, values, style, color=color, label=f"{name}, {key}")
    axes["F"].axhline(RHO**2 / 4, color="#8C8C8C", linestyle="--", label="largest on the sphere")
    axes["F"].set(xscale="log", yscale="log", xlabel="ηλ", ylabel="‖∇L(x/‖x‖)‖²")
    axes["F"].set_title("Stationarity, ρ = 1", loc="left")
    claims.legend(axes["F"], fontsize=9)


def _case(line: dict) -> tuple[str, float | None]:
    return line["point"]["noise"], line["point"]["clip"]


def table(lines: Sequence[dict]) -> str:
    """Measured against predicted, with their ratios."""
    norms, gradients = [], []
    for line in lines:
        point, r = line["point"], line["result"]
        if point["part"] == "norm":
            clip = f"{point['clip']:g}" if point["clip"] else "none"
            row = [NOISES[point["noise"]], clip, f"{point['eta_lambda']:g}"]
            row += [f"{r['predicted']:.3f}", f"{r['measured']:.3f}", f"{r['ratio']:.3f}"]
            row.append(f"{r['extremes'][0]:.2f} … {r['extremes'][1]:.3g}")
            row.append(f"{100 * r['in_band']:.1f}")
            for place in (0, 2):
                row.append(f"{r['recovery'][place]:.0f} / {r['recovery_predicted'][place]:.0f}")
            row.append(f"{r['entry_bound']:.0f}" if r["entry_bound"] else "–")
            norms.append(row)
            continue
        name = {"descent": "4.1, gradient descent", "noisy": "4.5, SGD"}[point["part"]]
        row = [name, f"{point['eta_lambda']:g}", f"{r['measured']:.3g}", f"{r['bound']:.3g}"]
        row += [f"{r['ratio']:.2g}", "yes" if r["says_something"] else "no"]
        reached = "–" if r["reached"] is None else f"{r['reached']:.0f}"
        gradients.append([*row, reached, f"{r['entry_bound']:.0f}"])
    header = ("noise", "C", "ηλ", "predicted", "measured", "ratio", "least … largest ratio")
    header += ("within the bounds, %", "steps from 0.01 ×, measured / predicted")
    header += ("steps from 100 ×", "bound on the entry")
    other = ("theorem", "ηλ", "‖∇L‖², measured", "bound", "ratio", "bound below ρ²/4")
    other += ("met at step", "by step, as the theorem says")
    return f"{claims.markdown(header, norms)}\n{claims.markdown(other, gradients)}"
