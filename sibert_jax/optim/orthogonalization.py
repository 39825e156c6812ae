"""SWAN's whitening and Muon's orthogonalization, applied to the gradient without momentum.

Notation: G the gradient of a matrix with I inputs and O outputs, B a batch of stacked matrices.
"""

import math

import jax
import jax.numpy as jnp
import optax

from sibert_jax.optim.matrix_axes import AxesOrFn, MatrixAxes
from sibert_jax.optim.scalars import check_integer
from sibert_jax.optim.unit_rms import over_rms, stateless_direction

# (a, b, c) of X ← aX + bXXᵀX + c(XXᵀ)²X.
_CUBIC = (1.5, -0.5, 0.0)
_QUINTIC = (3.4445, -4.7750, 2.0315)
_EQUAL = 1e-6  # relative, about the float32 rounding error of a mean


def _newton_schulz(g: jax.Array, found: MatrixAxes, coefficients, num_steps: int) -> jax.Array:
    """Move the singular values of G/‖G‖, all ≤ 1, towards 1; the singular vectors stay."""
    a, b, c = coefficients
    inputs, outputs = found
    order = tuple(i for i in range(g.ndim) if i not in inputs + outputs) + inputs + outputs
    shape = tuple(g.shape[i] for i in order)
    num_inputs, num_outputs = (math.prod(g.shape[i] for i in axes) for axes in found)
    x_BIO = over_rms(g, inputs + outputs) / math.sqrt(num_inputs * num_outputs)
    x_BIO = x_BIO.transpose(order).reshape(-1, num_inputs, num_outputs)
    tall = num_inputs > num_outputs
    x_BMN = x_BIO.mT if tall else x_BIO  # M ≤ N, so XXᵀ is the smaller product

    def step(_, x_BMN):
        gram_BMM = x_BMN @ x_BMN.mT
        return a * x_BMN + (b * gram_BMM + c * gram_BMM @ gram_BMM) @ x_BMN

    x_BMN = jax.lax.fori_loop(0, num_steps, step, x_BMN)
    x_BIO = x_BMN.mT if tall else x_BMN
    return x_BIO.reshape(shape).transpose(tuple(order.index(i) for i in range(g.ndim)))


def scale_by_orthogonalization(
    num_steps: int = 5, *, axes: AxesOrFn = None
) -> optax.GradientTransformationExtraArgs:
    r"""Replace the singular values of every gradient matrix by nearly equal ones.

    .. math:: G = U \Sigma V^\top \;\mapsto\; \sqrt{\max(I, O)}\; U V^\top

    No state (0 bytes): Muon's direction without its momentum, by Muon's quintic Newton–Schulz
    steps, which bring the singular values of UVᵀ to about 0.7 … 1.2. The factor gives a full-rank
    matrix a root mean square of 1. `optax.contrib.scale_by_muon(beta=0)` has the same direction but
    stores the gradient.

    Edge cases: a gradient of 0 stays 0; singular values of 0 stay 0. One NaN or inf makes its whole
    matrix NaN, but no other matrix of a stack. The direction does not depend on the magnitude of a
    finite gradient. A leaf that is not a matrix is divided by its root mean square.

    Under `jit` leaves may be sharded in any way; inside `shard_map` they must be whole. Products
    use JAX's default precision, set by `jax.default_matmul_precision`.

    Args:
      num_steps: Newton–Schulz steps, ≥ 1.
      axes: as in `scale_by_unit_rms`.

    Returns:
      A transformation without state; its updates point uphill, like those of any `scale_by_*`.

    Raises:
      ValueError: num_steps not a whole number ≥ 1, a leaf that is not floating point, or axes that
        do not fit a leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> from sibert_jax.optim import scale_by_orthogonalization
      >>> tx = scale_by_orthogonalization()
      >>> grads = jnp.diag(jnp.array([100.0, 30.0, 10.0]))
      >>> updates, _ = tx.update(grads, tx.init(grads))
      >>> print((jnp.diag(updates) / 3**0.5).round(2))
      [0.75 0.93 0.68]

    References:
      Jordan et al., *Muon*, https://kellerjordan.github.io/posts/muon (the coefficients); Liu et
      al., *Muon is Scalable*, https://arxiv.org/abs/2502.16982, equation 4 (the factor).
    """
    num_steps = check_integer("num_steps", num_steps, minimum=1)

    def orthogonalized(g: jax.Array, found: MatrixAxes) -> jax.Array:
        longest = max(math.prod(g.shape[i] for i in axes) for axes in found)
        return math.sqrt(longest) * _newton_schulz(g, found, _QUINTIC, num_steps)

    return stateless_direction(orthogonalized, axes)


def scale_by_whitening(
    num_steps: int = 10, *, axes: AxesOrFn = None
) -> optax.GradientTransformationExtraArgs:
    r"""Standardize the gradient of every output unit, then whiten the matrix.

    .. math:: s_o = (g_o - \bar g_o)/\mathrm{std}(g_o), \qquad
      u = \frac{\|S\|}{\|Z\|}\,Z, \quad Z = S\,(S^\top S)^{-1/2}

    No state (0 bytes): SWAN's GradNorm over the inputs of each output, and its GradWhitening with
    the norm of S. The paper writes W as (O, I) and iterates on (SSᵀ)^{-1/2} with β = 1/2; in exact
    arithmetic its Z is the limit of X ← (3X − XXᵀX)/2 from S/‖S‖, which is used here. A singular
    value of S/‖S‖ grows by a factor of 1.5 per step until it is near 1.

    Edge cases: a unit whose entries are equal to within 1e-6 of the largest becomes 0. One NaN or
    inf makes its whole matrix NaN, but no other matrix of a stack. The direction does not depend on
    the magnitude of a finite gradient. A leaf that is not a matrix is divided by its root mean
    square.

    Under `jit` leaves may be sharded in any way; inside `shard_map` they must be whole. Products
    use JAX's default precision, set by `jax.default_matmul_precision`; the paper whitens in
    float32.

    Args:
      num_steps: Newton–Schulz steps, ≥ 1.
      axes: as in `scale_by_unit_rms`.

    Returns:
      A transformation without state; its updates point uphill, like those of any `scale_by_*`.

    Raises:
      ValueError: num_steps not a whole number ≥ 1, a leaf that is not floating point, or axes that
        do not fit a leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> from sibert_jax.optim import scale_by_whitening
      >>> tx = scale_by_whitening()
      >>> grads = jnp.array([[9.0, 0.0], [1.0, 0.0], [2.0, 3.0]])  # three inputs, two outputs
      >>> updates, _ = tx.update(grads, tx.init(grads))
      >>> gram = updates.T @ updates
      >>> print(f"{gram[0, 0]:.2f} {gram[1, 1]:.2f} {abs(gram[0, 1]):.2f}")
      3.00 3.00 0.00

    References:
      Ma, Gong, Scetbon, Meeds, *SWAN*, https://arxiv.org/abs/2412.13148, Algorithms 1 to 3. The
      handling of zeros and NaN is ours.
    """
    num_steps = check_integer("num_steps", num_steps, minimum=1)

    def whitened(g: jax.Array, found: MatrixAxes) -> jax.Array:
        g = over_rms(g, found.inputs)
        centered = g - jnp.mean(g, axis=found.inputs, keepdims=True)
        largest = jnp.max(jnp.abs(centered), axis=found.inputs, keepdims=True)
        s = over_rms(jnp.where(largest <= _EQUAL, 0.0, centered), found.inputs)
        z = _newton_schulz(s, found, _CUBIC, num_steps)
        both = found.inputs + found.outputs
        return over_rms(z, both) * jnp.sqrt(jnp.mean(jnp.square(s), axis=both, keepdims=True))

    return stateless_direction(whitened, axes)
