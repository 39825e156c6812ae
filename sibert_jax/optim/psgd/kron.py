"""PSGD with a Kronecker product of small factors, one per axis of each tensor.

Tensors of the same shape are stacked and fitted together, so program size and compile time grow
with the number of shapes, not of tensors.
"""

from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from sibert_jax.optim.psgd.kron_fit import UpdateForm, apply_factors, fit_factors
from sibert_jax.optim.psgd.pairs import Leaves, Mode, fit_dtype, times_unit
from sibert_jax.optim.psgd.transform import Form, scale_by_psgd
from sibert_jax.optim.scalars import check_scalar


class KronPreconditioner(NamedTuple):
    """The factors of every tensor: trees in the structure of the parameters.

    Attributes:
      factors: per tensor, a tuple with one entry per axis: a square matrix, or a vector for a
        diagonal one. A scalar counts as one axis of length 1.
      bounds: per tensor, a tuple with one scalar per axis: the curvature bound L, zero until the
        first usable gradient.
    """

    factors: Any
    bounds: Any


def _as_tensor(leaf: jax.Array) -> jax.Array:
    return leaf.reshape(1) if leaf.ndim == 0 else leaf


def _groups(leaves: Leaves) -> list[list[int]]:
    """Return the positions of the leaves, grouped by shape and dtype."""
    groups: dict[Any, list[int]] = {}
    for i, leaf in enumerate(leaves):
        groups.setdefault((leaf.shape, leaf.dtype), []).append(i)
    return list(groups.values())


def _stacked(entries: list[Any], group: list[int]) -> Any:
    return jax.tree.map(lambda *xs: jnp.stack(xs), *[entries[i] for i in group])


def _positions(size: int, bounds: tuple[jax.Array, ...]) -> list[jax.Array]:
    """Return 0, 1, … as scalars whose values the compiler cannot know.

    A slice at a static index compiles to a separate kernel for every leaf and array; slices at
    dynamic indices share one. The loop runs exactly once, which depends on data.
    """
    zero = (bounds[0][0] < 0).astype(jnp.int32)
    _, found = jax.lax.while_loop(
        lambda carry: carry[0] < 1,
        lambda carry: (carry[0] + 1, [0 * x + i for i, x in enumerate(carry[1])]),
        (zero, [zero] * size),
    )
    return found


def _put(stack: Any, positions: list[jax.Array], group: list[int], into: list[Any]) -> None:
    for position, i in zip(positions, group):
        into[i] = jax.tree.map(
            lambda x, at=position: jax.lax.dynamic_index_in_dim(x, at, keepdims=False), stack
        )


def _kron_form(
    mode: Mode, update_form: UpdateForm, max_size_triangular: int, min_ndim_triangular: int
) -> Form:
    def init(params: optax.Params) -> KronPreconditioner:
        def factor(size: int, leaf: jax.Array) -> jax.Array:
            dense = jnp.ndim(leaf) >= min_ndim_triangular and 1 < size <= max_size_triangular
            dtype = fit_dtype(leaf)
            return jnp.eye(size, dtype=dtype) if dense else jnp.ones(size, dtype)

        def axes(leaf):
            return jnp.shape(leaf) or (1,)

        return KronPreconditioner(
            factors=jax.tree.map(lambda x: tuple(factor(n, x) for n in axes(x)), params),
            bounds=jax.tree.map(
                lambda x: tuple(jnp.zeros([], fit_dtype(x)) for _ in axes(x)), params
            ),
        )

    def fit(q: KronPreconditioner, v: Leaves | None, h: Leaves, mu, key) -> KronPreconditioner:
        def fit_one(factors, bounds, v, h, noise):
            v = None if v is None else _as_tensor(v)
            h, noise = _as_tensor(h), _as_tensor(noise)
            return fit_factors(factors, bounds, v, h, noise, mu, mode=mode, update_form=update_form)

        factors, bounds = list(q.factors), list(q.bounds)
        for number, group in enumerate(_groups(h)):
            columns = [_stacked(x, group) for x in (q.factors, q.bounds, v or h, h)]
            if v is None:
                columns[2] = None
            noise_key = jax.random.fold_in(key, number)
            noise = jax.random.normal(noise_key, columns[3].shape, columns[3].dtype)
            new = jax.vmap(fit_one)(*columns, noise)
            positions = _positions(len(group), new[1])
            _put(new[0], positions, group, factors)
            _put(new[1], positions, group, bounds)
        return q._replace(factors=factors, bounds=bounds)

    def apply(q: KronPreconditioner, g: Leaves) -> Leaves:
        def apply_one(factors, x):
            (out,) = times_unit(lambda unit: [apply_factors(factors, unit[0])], [_as_tensor(x)])
            return out.reshape(x.shape)

        outs = list(g)
        for group in _groups(g):
            stack = jax.vmap(apply_one)(_stacked(q.factors, group), _stacked(g, group))
            _put(stack, _positions(len(group), _stacked(q.bounds, group)), group, outs)
        return outs

    return Form(init, fit, apply)


def scale_by_psgd_kron(
    preconditioner_learning_rate: optax.ScalarOrSchedule = 0.1,
    *,
    mode: Mode = "whitening",
    update_form: UpdateForm = "inverse_free",
    max_size_triangular: int = 8192,
    min_ndim_triangular: int = 2,
    update_every: int = 1,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""Precondition each tensor with P = QᵀQ, Q a Kronecker product of one factor per axis.

    .. math:: \min_Q\; \mathbb E[h^\top P h + v^\top P^{-1} v], \qquad u = P g

    `whitening`: h is the gradient and v is random, so P → (E ggᵀ)^{−1/2} and P g has entries of
    size 1, like Adam's updates. `newton`: h = Hv, so P → H⁻¹ exactly for H ≻ 0, and near |H|⁻¹ at a
    saddle. With dense factors on matrices this is the affine-group preconditioner (append a bias to
    its matrix as one more row).

    Memory: m² + n² floats for an m × n matrix. Use it as `optax.chain(scale_by_psgd_kron(),
    optax.add_decayed_weights(λ), optax.scale_by_learning_rate(η))`, preceded by `optax.ema(0.9)`
    for momentum and followed by `optax.clip_by_block_rms(1.0)` against spikes.

    Edge cases: the first finite nonzero gradient of a tensor sets the scale of its Q; before that,
    P = I. Later, an h that is all zero, NaN or inf leaves the factors unchanged (P g is then 0, NaN
    or inf). Rows that never see a gradient reach P = 1e4/rms(h) and stop. Under `jit` tensors may
    be sharded; `shard_map` is not supported, since the factors need whole axes.

    Args:
      preconditioner_learning_rate: μ in (0, 1), a number or a schedule. In whitening mode Q keeps
        noise of order √μ: decay μ for an exact fit. In newton mode 0.5 is faster than 0.1.
      mode: `whitening` or `newton`; the latter needs `update(..., vector=v, hvp=Hv)` (see
        `gradient_and_hvp`) and, under `optax.masked` or `optax.partition`,
        `mask_compatible_extra_args=True`.
      update_form: how dense factors are updated. `inverse_free`, dQ = Q^½ E Q^{3/2}, uses only
        matrix products and keeps Q nearly symmetric; `triangular`, dQ = E Q, keeps Q triangular,
        needs triangular solves and converges at a rate of 1/condition of P.
      max_size_triangular: axes longer than this get a diagonal factor, the others a dense or
        triangular one.
      min_ndim_triangular: tensors with fewer axes get diagonal factors; 1 gives vectors dense ones.
      update_every: ≥ 1, steps between two fits of Q.
      seed: random seed of the noise in h, and of v where it is drawn.

    Returns:
      A transformation with state `PsgdState`; `preconditioner` is a `KronPreconditioner`, whose
      trees hold a tuple of arrays per tensor: `optax.tree.map_params(..., is_leaf=lambda x:
      isinstance(x, tuple))` sees a tensor's factors together. P g points uphill, like g: the
      learning rate negates it.

    Raises:
      ValueError: a number out of its range, an unknown mode or update form, a leaf that is not
        floating point, updates that do not have the parameters' structure, or `vector` or `hvp`
        missing in newton mode.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from sibert_jax.optim import gradient_and_hvp, scale_by_psgd_kron
      >>> loss = lambda x: 0.5 * (x[0] ** 2 + 100.0 * x[1] ** 2)
      >>> tx = optax.chain(scale_by_psgd_kron(0.5, mode="newton"), optax.scale(-0.5))
      >>> x = jnp.ones(2)
      >>> state, update = tx.init(x), jax.jit(tx.update)
      >>> for step in range(40):
      ...     g, v, hv = gradient_and_hvp(loss, x, jax.random.key(step))
      ...     updates, state = update(g, state, x, vector=v, hvp=hv)
      ...     x = x + updates
      >>> bool(loss(x) < 1e-6)
      True

    References:
      Pooladzandi, Li, *Curvature-Informed SGD via General Purpose Lie-Group Preconditioners*,
      https://arxiv.org/abs/2402.04553, sections 3 and 4 (criterion, Lie groups); Li,
      *Preconditioner on Matrix Lie Group for SGD*, https://arxiv.org/abs/1809.10232 (Kronecker);
      Li, *Stochastic Hessian Fittings with Lie Groups*, https://arxiv.org/abs/2402.11858 (update
      forms). The bounds L, the damping relative to h and the first scale are ours.
    """
    check_scalar("max_size_triangular", max_size_triangular)
    check_scalar("min_ndim_triangular", min_ndim_triangular)
    if update_form not in get_args(UpdateForm):
        raise ValueError(
            f"update_form must be 'inverse_free' or 'triangular', found {update_form!r}."
        )
    form = _kron_form(mode, update_form, max_size_triangular, min_ndim_triangular)
    return scale_by_psgd(form, preconditioner_learning_rate, mode, update_every, seed)
