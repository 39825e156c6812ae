"""The equilibrium of SGD with weight decay on scale-invariant parameters, and the time to reach it.

Notation: x parameters, g gradient at x, η learning rate, λ weight decay, α momentum, C clip factor,
σ² the mean of ‖g‖² at ‖x‖ = 1. Scale invariance makes g ⟂ x and ‖g‖ = σ/‖x‖, so
‖x₊‖² = (1−ηλ)²‖x‖² + η²‖g‖², and everything below follows from its fixed point.

Momentum with the decay inside the gradient (`coupled`, optax.add_decayed_weights before
optax.trace: PyTorch's SGD) acts like plain SGD with η' = η/(1−α), λ' = λ. With the decay outside
(`decoupled`, after optax.trace) η' = η/(1−α), λ' = λ(1−α); with an averaging momentum
m ← αm + (1−α)g and the decay outside (`averaged`, `sgd_sai`) η' = η, λ' = λ.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp

from sibert_jax.optim.scalars import check_scalar

Momentum = Literal["coupled", "decoupled", "averaged"]


def _float32(*values: jax.typing.ArrayLike) -> tuple[jax.Array, ...]:
    return tuple(jnp.asarray(value, jnp.float32) for value in values)


def plain_sgd_equivalent(
    learning_rate: jax.typing.ArrayLike,
    weight_decay: jax.typing.ArrayLike,
    momentum: float = 0.0,
    convention: Momentum = "coupled",
) -> tuple[jax.Array, jax.Array]:
    """Return (η', λ') of the momentum-free SGD with the same norm dynamics.

    One gradient moves x by η·g/(1−α) in total, spread over about 1/(1−α) steps.

    Args:
      learning_rate: η ≥ 0.
      weight_decay: λ ≥ 0.
      momentum: α in [0, 1).
      convention: where the decay enters, see the module docstring.

    Returns:
      η' and λ', float32.

    Raises:
      ValueError: unknown convention, or α outside [0, 1).

    Example:
      >>> from sibert_jax.optim import equilibrium
      >>> eta, lam = equilibrium.plain_sgd_equivalent(0.1, 0.01, momentum=0.9)
      >>> print(f"{eta:.2f} {lam:.2f}")
      1.00 0.01

    References:
      Derived here and confirmed by simulation in the tests; the resulting rotation agrees with the
      SGDM table of Kosson, Messmer, Jaggi, https://arxiv.org/abs/2305.17212.
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be >= 0 and < 1, found {momentum:g}.")
    eta, lam, spread = _float32(learning_rate, weight_decay, 1 - momentum)
    equivalents = {
        "coupled": (eta / spread, lam),
        "decoupled": (eta / spread, lam * spread),
        "averaged": (eta, lam),
    }
    if convention not in equivalents:
        raise ValueError(f"convention must be one of {list(equivalents)}, found {convention!r}.")
    return equivalents[convention]


def rotation_per_step(
    learning_rate: jax.typing.ArrayLike,
    weight_decay: jax.typing.ArrayLike,
    momentum: float = 0.0,
    convention: Momentum = "coupled",
) -> jax.Array:
    r"""Return the angle per step, in radians, at equilibrium.

    .. math:: \sqrt{2\eta\lambda}, \qquad
      \sqrt{2\eta\lambda/(1+\alpha)}\ \text{(coupled)}, \qquad
      \sqrt{2\eta\lambda(1-\alpha)/(1+\alpha)}\ \text{(decoupled, averaged)}

    To leading order in ηλ; without momentum the exact angle is arccos(1−ηλ).

    Args:
      learning_rate: η ≥ 0.
      weight_decay: λ ≥ 0.
      momentum: α in [0, 1).
      convention: where the decay enters, see the module docstring.

    Returns:
      Radians per step, float32.

    Example:
      >>> from sibert_jax.optim import equilibrium
      >>> print(f"{equilibrium.rotation_per_step(8e-4, 1e-2):.4f}")
      0.0040

    References:
      Kosson, Messmer, Jaggi, *Rotational Equilibrium*, https://arxiv.org/abs/2305.17212 (coupled);
      Li et al., https://arxiv.org/abs/2202.00980, section 4 (without momentum).
    """
    eta, lam = plain_sgd_equivalent(learning_rate, weight_decay, momentum, convention)
    # Consecutive momentum steps are correlated, so each turns x by less than an independent step.
    (share,) = _float32((1 - momentum) / (1 + momentum))
    return jnp.sqrt(2 * eta * lam * share)


def equilibrium_norm(
    learning_rate: jax.typing.ArrayLike,
    weight_decay: jax.typing.ArrayLike,
    unit_grad_norm: jax.typing.ArrayLike,
    momentum: float = 0.0,
    convention: Momentum = "coupled",
) -> jax.Array:
    r"""Return the parameter norm at which weight decay and gradient balance.

    .. math:: \|x\|^2 = \sqrt{\frac{\eta}{\lambda(2-\eta\lambda)}}\;\sigma

    Equivalently (2λ/η)‖x‖⁴ = σ²/(1−ηλ/2). The paper prints an extra factor 2 under the root, which
    contradicts its own recursion and the simulation in the tests. Under the C-clip, σ² is the
    C-clipped mean of ‖g‖² at ‖x‖ = 1.

    Args:
      learning_rate: η > 0.
      weight_decay: λ > 0.
      unit_grad_norm: σ, the root mean square of ‖g‖·‖x‖.
      momentum: α in [0, 1).
      convention: where the decay enters, see the module docstring.

    Returns:
      ‖x‖, float32.

    Example:
      >>> from sibert_jax.optim import equilibrium
      >>> print(f"{equilibrium.equilibrium_norm(8e-4, 1e-2, unit_grad_norm=1.0):.3f}")
      0.447

    References:
      Li et al., https://arxiv.org/abs/2202.00980, section 4 (fixed point of the norm recursion).
    """
    eta, lam = plain_sgd_equivalent(learning_rate, weight_decay, momentum, convention)
    (sigma,) = _float32(unit_grad_norm)
    return jnp.sqrt(jnp.sqrt(eta / (lam * (2 - eta * lam))) * sigma)


def learning_rate_for_rotation(
    eta_lambda: jax.typing.ArrayLike,
    param_norm: jax.typing.ArrayLike,
    grad_norm: jax.typing.ArrayLike,
) -> jax.Array:
    r"""Return the η whose first step already turns x by the equilibrium angle.

    .. math:: \eta = \sqrt{2\,(\eta\lambda)}\;\|x_0\|/\|g_0\|, \qquad \lambda = (\eta\lambda)/\eta

    Args:
      eta_lambda: the product ηλ > 0; keep its sum over the run constant when scaling the run.
      param_norm: ‖x₀‖.
      grad_norm: ‖g₀‖ > 0 of a gradient at x₀.

    Returns:
      η, float32.

    Example:
      >>> from sibert_jax.optim import equilibrium
      >>> eta = equilibrium.learning_rate_for_rotation(8e-6, param_norm=10.0, grad_norm=50.0)
      >>> print(f"{eta:.1e} {8e-6 / eta:.1e}")
      8.0e-04 1.0e-02
    """
    product, x, g = _float32(eta_lambda, param_norm, grad_norm)
    return jnp.sqrt(2 * product) * x / g


def clip_threshold(
    learning_rate: jax.typing.ArrayLike,
    weight_decay: jax.typing.ArrayLike,
    clip_factor: jax.typing.ArrayLike,
    momentum: float = 0.0,
    convention: Momentum = "coupled",
) -> jax.Array:
    r"""Return the largest ‖g‖/‖x‖ that passes the clip: √C times its equilibrium value.

    .. math:: \sqrt{2 C \lambda / \eta}

    With momentum, uses η' and λ' of `plain_sgd_equivalent`. Infinite (no clip) if η = 0 or λ = 0,
    where there is no equilibrium.

    Args:
      learning_rate: η ≥ 0.
      weight_decay: λ ≥ 0.
      clip_factor: C > 1.
      momentum: α in [0, 1).
      convention: where the decay enters, see the module docstring.

    Returns:
      The ratio, float32.

    Example:
      >>> from sibert_jax.optim import equilibrium
      >>> print(f"{equilibrium.clip_threshold(8e-4, 1e-2, clip_factor=4.0):.2f}")
      10.00

    References:
      Li et al., https://arxiv.org/abs/2202.00980, Algorithm 1.
    """
    eta, lam = plain_sgd_equivalent(learning_rate, weight_decay, momentum, convention)
    (c,) = _float32(clip_factor)
    settles = (eta > 0) & (lam > 0)
    return jnp.where(settles, jnp.sqrt(2 * c * lam / jnp.where(settles, eta, 1.0)), jnp.inf)


def equilibrium_gap(
    learning_rate: jax.typing.ArrayLike,
    weight_decay: jax.typing.ArrayLike,
    param_norm: jax.typing.ArrayLike,
    grad_norm: jax.typing.ArrayLike,
) -> jax.Array:
    r"""Return how far ‖x‖ is from its equilibrium value, as a natural logarithm.

    .. math:: \ln\frac{\|x\|}{\|x\|_{eq}}
      = \tfrac12 \ln\frac{\|x\|}{\|g\|} + \tfrac14 \ln\frac{\lambda(2-\eta\lambda)}{\eta}

    0 at equilibrium; positive while the weights are too large for their gradient and shrink,
    negative while they are too small and grow.

    Args:
      learning_rate: η > 0.
      weight_decay: λ > 0.
      param_norm: ‖x‖ > 0.
      grad_norm: ‖g‖ > 0.

    Returns:
      The gap, float32; ±inf or NaN where an argument is 0.

    Example:
      >>> from sibert_jax.optim import equilibrium
      >>> print(f"{equilibrium.equilibrium_gap(8e-4, 1e-2, 2.0, 2.5):.3f}")  # ½ ln 4
      0.693
    """
    eta, lam, x, g = _float32(learning_rate, weight_decay, param_norm, grad_norm)
    return 0.5 * jnp.log(x / g) + 0.25 * jnp.log(lam * (2 - eta * lam) / eta)


def _clipped_growth(p: float, clip_factor: float, momentum: float, convention: Momentum) -> float:
    """Return the growth γ of ln‖x‖ per step while every gradient is clipped.

    With ‖g‖ ∝ ‖x‖ ∝ e^{γt} and independent gradient directions, a momentum Σ αᵏg₍ₜ₋ₖ₎ has the
    squared norm 1/(1−α²e^{−2γ}) and the radial part below, which comes from its own past steps.
    Coupled decay passes through the momentum too.
    """
    gamma = 0.0
    for _ in range(100):  # a contraction: the bracket falls slowly with γ
        a2 = momentum**2 * math.exp(-2 * gamma)
        b = momentum * math.exp(-2 * gamma)
        own = 1 / (1 - a2)
        radial = 2 / (1 - momentum) * (1 / (1 - b) - own)
        lag = (1 - momentum) / (1 - momentum * math.exp(-gamma))
        decay = p * (lag if convention == "coupled" else 1.0)
        kick = 2 * clip_factor * p * (1 - momentum) ** 2
        gamma = 0.5 * math.log((1 - decay) ** 2 + kick * (own + radial))
    return gamma


def recovery_steps(
    learning_rate: float,
    weight_decay: float,
    scale: float,
    *,
    clip_factor: float | None = None,
    momentum: float = 0.0,
    convention: Momentum = "coupled",
) -> float:
    r"""Return the number of steps from s times the equilibrium norm back to equilibrium.

    With p = η'λ' (`plain_sgd_equivalent`) and r = (‖x‖/‖x‖_eq)², the norm follows
    r₊ = (1−p)²r + p(2−p)/r, and for small p the distance r²−1 decays by e^{−4p} per step.
    Equilibrium counts as reached at |r²−1| ≤ ½ from below and r² ≤ 2 (‖x‖ within 19 %) from above,
    so that to leading order

    .. math::
      s > 1:&\quad \ln(s)/p \\
      s < 1,\ \text{clip}:&\quad \ln(1/s)/((C-1)\,p) \\
      s < 1,\ \text{no clip}:&\quad \text{one jump to } r = 2p/s^2,\text{ then } \ln(\sqrt r)/p

    The returned value includes the corrections that these omit: the exact fixed point, the growth
    of r by (1−p)² + 2Cp per step while the clip binds (r < 1/√C; slower with momentum, whose older
    gradients are smaller), and the relaxation after it.

    Args:
      learning_rate: η > 0.
      weight_decay: λ > 0, ηλ well below 1.
      scale: s > 0, the initial norm over the equilibrium norm.
      clip_factor: C > 1 of the clip at `clip_threshold`, None for no clip.
      momentum: α in [0, 1), also that of `clip_threshold`.
      convention: where the decay enters, see the module docstring.

    Returns:
      The number of steps, not rounded; 0 if already at equilibrium.

    Raises:
      ValueError: s ≤ 0 or C ≤ 1.

    Example:
      >>> from sibert_jax.optim import equilibrium
      >>> round(equilibrium.recovery_steps(8e-4, 1e-2, scale=100.0))  # ln(100)/8e-6 = 576k
      575644
      >>> round(equilibrium.recovery_steps(8e-4, 1e-2, scale=0.01, clip_factor=4.0))
      190116

    References:
      Li et al., https://arxiv.org/abs/2202.00980, theorems 4.5 and 4.8 (T₁ and T' are bounds of the
      same form). The sharp constants are derived here and confirmed by simulation in the tests.
    """
    check_scalar("scale", scale, strict=True)
    if clip_factor is not None:
        check_scalar("clip_factor", clip_factor, minimum=1.0, strict=True)
    eta, lam = plain_sgd_equivalent(learning_rate, weight_decay, momentum, convention)
    p = float(eta) * float(lam)
    relaxation = -4 * math.log1p(-p)  # rate at which r² − 1 decays
    r = scale**2
    if 0.5 <= r**2 <= 2:
        return 0.0
    if r > 1:
        return math.log(r**2 - 1) / relaxation
    if clip_factor is None:
        jump = (1 - p) ** 2 * r + p * (2 - p) / r
        if jump > 1:
            return 1 + (math.log(jump**2 - 1) / relaxation if jump**2 > 2 else 0.0)
        return math.log((1 - r**2) / 0.5) / relaxation
    unclipped_from = max(clip_factor, 2.0) ** -0.5  # for C < 2, back before the clip stops binding
    growth = 2 * _clipped_growth(p, clip_factor, momentum, convention)
    clipped_steps = max(0.0, math.log(unclipped_from / r) / growth)
    r = max(r, unclipped_from)
    return clipped_steps + max(0.0, math.log((1 - r**2) / 0.5) / relaxation)
