"""SinkGD: alternately normalize the outputs and the inputs of a gradient matrix.

Notation: G the gradient of a matrix with I inputs and O outputs.
"""

import jax
import optax

from sibert_jax.optim.matrix_axes import AxesOrFn, MatrixAxes
from sibert_jax.optim.scalars import check_integer
from sibert_jax.optim.unit_rms import over_rms, stateless_direction


def scale_by_sinkhorn(
    num_passes: int = 5, *, axes: AxesOrFn = None
) -> optax.GradientTransformationExtraArgs:
    r"""Divide by the root mean square of each output unit, then of each input unit, L times.

    .. math:: X \leftarrow X\,\mathrm{diag}(\|X_{\cdot o}\|/\sqrt I)^{-1}, \qquad
      X \leftarrow \mathrm{diag}(\|X_{i\cdot}\|/\sqrt O)^{-1} X, \qquad X_0 = G

    No state (0 bytes). The paper writes W as (O, I): its rows are the outputs here. After the last
    pass every input has root mean square 1, and every output nearly so.

    Edge cases: units with gradient 0 stay 0 and count in the means of the others. One NaN or inf
    makes its whole matrix NaN, but no other matrix of a stack. The direction does not depend on the
    magnitude of a finite gradient. A leaf that is not a matrix is divided by its root mean square.

    Under `jit` leaves may be sharded in any way; inside `shard_map` they must be whole.

    Args:
      num_passes: L ≥ 1; the paper uses 5.
      axes: as in `scale_by_unit_rms`.

    Returns:
      A transformation without state; its updates point uphill, like those of any `scale_by_*`.

    Raises:
      ValueError: L not a whole number ≥ 1, a leaf that is not floating point, or axes that do not
        fit a leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> from sibert_jax.optim import scale_by_sinkhorn
      >>> tx = scale_by_sinkhorn()
      >>> grads = jnp.array([[8.0, 2.0], [-1.0, 4.0]])
      >>> updates, _ = tx.update(grads, tx.init(grads))
      >>> print((updates**2).sum(0).round(2), (updates**2).sum(1).round(2))
      [1.91 2.09] [2. 2.]

    References:
      Scetbon, Ma, Gong, Meeds, *Gradient Multi-Normalization for Stateless and Scalable LLM
      Training*, https://arxiv.org/abs/2502.06742, Algorithm 3. The handling of zeros and NaN is
      ours.
    """
    num_passes = check_integer("num_passes", num_passes, minimum=1)

    def normalized(g: jax.Array, found: MatrixAxes) -> jax.Array:
        for _ in range(num_passes):
            g = over_rms(over_rms(g, found.inputs), found.outputs)
        return g

    return stateless_direction(normalized, axes)
