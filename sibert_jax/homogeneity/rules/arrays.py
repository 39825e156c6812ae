"""Rules for operations on whole arrays: movement, indexing, reductions, linear algebra, devices."""

from __future__ import annotations

import math
from fractions import Fraction

from jax.lax import GatherScatterMode

from sibert_jax.homogeneity.degree import ANY, ZERO
from sibert_jax.homogeneity.rules import higher_order, mixing, movement
from sibert_jax.homogeneity.values import degree_of_constant

# Movement: elements are moved, repeated or joined, but not changed.


@movement(
    "broadcast_in_dim", "broadcast_to", "reshape", "transpose", "squeeze", "expand_dims", "rev",
    "slice", "tile",
)  # fmt: skip
def moved(step, x, *_):
    """Every output element is an element of the operand."""
    return x


@movement("dynamic_slice")
def dynamic_slice(step, x, *starts):
    """The start indices are data, which must not change."""
    step.zero(*starts)
    return x


@mixing("concatenate", "pad", "stack")
def joined(step, *operands):
    """The parts must have equal degrees (padding with 0 fits any)."""
    return step.equal(*operands)


@mixing("split", "unstack")
def split(step, x):
    """Each part has the degree of the whole."""
    return x


@mixing("dynamic_update_slice")
def dynamic_update_slice(step, x, update, *starts):
    """The update joins the operand."""
    step.zero(*starts)
    return step.equal(x, update)


@higher_order(
    "stop_gradient", "copy", "copy_p", "name", "optimization_barrier", "device_put", "reshard",
    "sharding_constraint", "layout_constraint", "mesh_cast", "shard_alike",
    "pvary", "pbroadcast", "reduced_vary_cast",
)  # fmt: skip
def unchanged(interpreter, step, *operands):
    """Each output is the operand in the same position: annotations, placement and ordering."""
    return list(operands[-len(step.eqn.outvars) :])


@higher_order("debug_callback", "debug_print", "inspect_sharding", "dce_sink")
def no_outputs(interpreter, step, *operands):
    """Callbacks and printing have no outputs."""
    return []


# Indexing: indices are data and must not change.


@mixing("gather")
def gather(step, operand, indices):
    """Elements of the operand; out-of-bounds ones are clamped, or filled with NaN or a number."""
    step.zero(indices)
    fill = step.params["fill_value"]
    if fill is None or step.params["mode"] != GatherScatterMode.FILL_OR_DROP:
        return operand
    degree, entry = degree_of_constant(fill)
    step.site.constants = (step.constants[0], entry)
    return step.equal(operand, degree)


@mixing("scatter")
def scatter(step, operand, indices, updates):
    """Updates replace elements of the operand, or `x.at[i].apply(f)` replaces them by f(x)."""
    if step.params["update_jaxpr"] is not None:
        step.zero(indices, operand)
        return ZERO
    return scatter_combined(step, operand, indices, updates)


@mixing("scatter-add", "scatter_add", "scatter-sub", "scatter_sub",
        "scatter-min", "scatter_min", "scatter-max", "scatter_max")  # fmt: skip
def scatter_combined(step, operand, indices, updates):
    """Updates are added to or compared with the operand's elements."""
    step.zero(indices)
    return step.equal(operand, updates)


@mixing("scatter-mul", "scatter_mul")
def scatter_mul(step, operand, indices, updates):
    """Only some elements are multiplied, so the factors must have degree 0."""
    step.zero(indices, updates)
    return operand


# Reductions, cumulative reductions, windows and sorting


@mixing(
    "reduce_sum", "reduce_max", "reduce_min", "cumsum", "cummax", "cummin",
    "reduce_window_sum", "reduce_window_max", "reduce_window_min",
)  # fmt: skip
def positively_homogeneous(step, x, *_):
    """Sums, maxima and minima of elements of one degree have that degree."""
    return x


@mixing("reduce_prod")
def reduce_prod(step, x):
    """A product of n elements has n times their degree."""
    shape = step.eqn.invars[0].aval.shape
    return step.power(x, math.prod(shape[axis] for axis in step.params["axes"]))


@mixing("cumprod", "cumlogsumexp", "reduce_and", "reduce_or", "reduce_xor")
def degree_zero(step, x):
    """Element k of a cumulative product has degree k·d: one degree for all only if d is 0."""
    return step.zero(x)


@mixing("argmax", "argmin")
def argmax(step, x):
    """The position of the largest element does not change when all are scaled."""
    return ZERO


@mixing("sort")
def sort(step, *operands):
    """Scaling preserves the order, so each operand is permuted as before."""
    return tuple(operands)


@mixing("top_k", "approx_top_k")
def top_k(step, x):
    """Values keep their degree, positions do not change."""
    return x, ZERO


@mixing("select_and_scatter_add", "select_and_gather_add")
def window_selection(step, source, operand):
    """The gradient of max pooling: `operand` only determines where `source` goes."""
    return source


# Products and linear algebra; in the docstrings, c > 0 multiplies the matrix A.


@mixing("dot_general", "conv_general_dilated", "ragged_dot", "ragged_dot_general", "scaled_dot")
def product(step, x, y, *rest):
    """A sum of products of elements: degrees add. Group sizes are integers of degree 0."""
    return step.product(x, y, *rest)


@mixing("fft")
def fft(step, x):
    """The Fourier transform is linear."""
    return x


@mixing("cholesky")
def cholesky(step, a):
    """cA = (√c L)(√c L)ᵀ."""
    return step.power(a, Fraction(1, 2))


@mixing("qr")
def qr(step, a):
    """cA = Q(cR); the pivots do not change."""
    return (ZERO, a, ZERO)[: len(step.eqn.outvars)]


@mixing("svd")
def svd(step, a):
    """cA = U(cS)Vᵀ."""
    return (a, ZERO, ZERO)[: len(step.eqn.outvars)]


@mixing("eigh")
def eigh(step, a):
    """Eigenvalues are scaled, eigenvectors (first output) are not."""
    return ZERO, a


@mixing("eig")
def eig(step, a):
    """Eigenvalues (first output) are scaled, eigenvectors are not."""
    return (a, ZERO, ZERO)[: len(step.eqn.outvars)]


@mixing("schur")
def schur(step, a):
    """cA = Z(cT)Zᴴ."""
    return (a, ZERO, ZERO)[: len(step.eqn.outvars)]


@mixing("lu")
def lu(step, a):
    """L (degree 0) and U (the degree of A) share one output, so A must have degree 0."""
    degree = step.zero(a) if a is not ANY else ZERO
    return degree, ZERO, ZERO


@mixing("geqrf", "hessenberg", "householder_product")
def reflectors(step, *operands):
    """Reflectors (degree 0) share an array with a factor of the matrix's degree: it must be 0."""
    return step.zero(*operands)


@mixing("ormqr")
def ormqr(step, reflectors, scales, c):
    """Q applied to c, with Q given by reflectors."""
    step.zero(reflectors, scales)
    return c


@mixing("lu_pivots_to_permutation")
def permutation(step, pivots):
    """Pivots are integers, which must not change."""
    return step.zero(pivots)


@mixing("triangular_solve")
def triangular_solve(step, a, b):
    """Solutions of ax = b have degree b - a; with a diagonal of ones, a cannot scale."""
    if step.params["unit_diagonal"]:
        step.zero(a)
        return b
    return ANY if ANY in (a, b) else b - a


@mixing("tridiagonal_solve")
def tridiagonal_solve(step, lower, diagonal, upper, b):
    """Solutions of Ax = b, A given by its three diagonals."""
    a = step.equal(lower, diagonal, upper)
    return ANY if ANY in (a, b) else b - a


# Communication between devices: each shard has the degree of the whole.


@higher_order(
    "psum", "psum2", "psum_invariant", "unreduced_psum", "pmax", "pmin", "ppermute", "all_gather",
    "all_gather_invariant", "all_gather_reduced", "all_to_all", "reduce_scatter",
    "unreduced_reduce_scatter", "preduced", "vary_unreduced_cast",
)  # fmt: skip
def collective(interpreter, step, *operands):
    """Sums, maxima and copies over devices: each output has the degree of its operand."""
    leaves = interpreter.merged(operands)
    outputs = [interpreter.value(leaf.degree, leaf.needs) for leaf in leaves]
    interpreter.record(step, outputs, operands)
    return outputs


@mixing("ragged_all_to_all")
def ragged_all_to_all(step, operand, output, *sizes):
    """The received parts are written into `output`."""
    step.zero(*sizes)
    return step.equal(operand, output)


# Random numbers, and arrays that depend on no operand


@mixing(
    "random_seed", "random_bits", "random_split", "random_fold_in", "random_wrap", "random_unwrap",
    "random_clone", "random_gamma", "threefry2x32", "threefry4x32", "philox2x32", "philox4x32",
    "rng_bit_generator", "rng_uniform", "iota_2x32_shape",
)  # fmt: skip
def random(step, *degrees):
    """Keys are data, and the parameters of a distribution must not scale."""
    return step.zero(*degrees)


@mixing(
    "iota", "axis_index", "create_token", "after_all", "platform_index",
    "dimension_size", "dim_as_value",
)  # fmt: skip
def given(step, *degrees):
    """Numbers that depend on shapes and devices only."""
    return step.zero(*degrees)


@mixing("empty", "empty2", "zeros_like")
def unwritten(step, *_):
    """Zeros, or memory that is never read, as in a branch's unused residuals."""
    return ANY
