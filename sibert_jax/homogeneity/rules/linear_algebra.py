"""Rules for factorisations and solves, with c > 0 times a matrix in mind."""

from __future__ import annotations

from fractions import Fraction

from sibert_jax.homogeneity.degree import ANY, ZERO
from sibert_jax.homogeneity.registry import higher_order, mixing


@mixing("cholesky")
def cholesky(step, a):
    """cA = (√c L)(√c L)ᵀ."""
    return step.power(a, Fraction(1, 2))


@mixing("qr")
def qr(step, a):
    """cA = Q(cR), and the pivots stay."""
    return (ZERO, a, ZERO)[: len(step.eqn.outvars)]


@mixing("svd")
def svd(step, a):
    """cA = U(cS)Vᵀ."""
    return (a, ZERO, ZERO)[: len(step.eqn.outvars)]


@mixing("eigh")
def eigh(step, a):
    """Eigenvectors (first output) stay, eigenvalues are scaled."""
    return ZERO, a


@mixing("eig")
def eig(step, a):
    """Eigenvalues (first output) are scaled, eigenvectors stay."""
    return (a, ZERO, ZERO)[: len(step.eqn.outvars)]


@mixing("schur")
def schur(step, a):
    """cA = Z(cT)Zᴴ."""
    return (a, ZERO, ZERO)[: len(step.eqn.outvars)]


@mixing("lu")
def lu(step, a):
    """L (degree 0) and U (that of A) share one output, so only degree 0 is certain; pivots stay."""
    degree = step.zero(a) if a is not ANY else ZERO
    return degree, ZERO, ZERO


@mixing("geqrf", "hessenberg", "householder_product")
def reflectors(step, *operands):
    """Householder reflectors (degree 0) share an array with a factor of the matrix's degree."""
    return step.zero(*operands)


@mixing("ormqr")
def ormqr(step, reflectors, scales, c):
    """Q applied to c, with Q given by reflectors."""
    step.zero(reflectors, scales)
    return c


@mixing("lu_pivots_to_permutation")
def permutation(step, pivots):
    """Integers."""
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


@higher_order("custom_linear_solve")
def custom_linear_solve(step, *operands):
    """Solutions of matvec(x) = b: a degree e with matvec of degree m + e equal to b's.

    What the solver returns besides (`has_aux`) is unchanged only if nothing scales.
    """
    interpreter = step.interpreter
    matvec, lengths = step.params["jaxprs"].matvec, step.params["const_lengths"]
    consts = [interpreter.whole(value) for value in operands[: lengths.matvec]]
    b = [interpreter.collapse(value.tree) for value in operands[sum(lengths) :]]
    solutions = len(b)
    calls = (*step.site.calls, step.eqn)
    probes = [interpreter.value(ZERO) for _ in range(solutions)]
    images = interpreter.run_closed(matvec, [*consts, *probes], calls)
    outputs, shared = [], 0
    for image, right in zip(images, b, strict=True):
        leaf = interpreter.collapse(image.tree)
        shared |= leaf.needs | right.needs
        degree = ANY if ANY in (leaf.degree, right.degree) else right.degree - leaf.degree
        outputs.append(degree)
    # matvec is linear in x, which is scaled as one vector: all its parts have one degree.
    degree, needs = interpreter.equal(step.site, outputs)
    values = [interpreter.value(degree, shared | needs) for _ in outputs]
    if len(step.eqn.outvars) > solutions:
        leaves = [interpreter.collapse(value.tree) for value in operands]
        needs = interpreter.zero(step.site, [leaf.degree for leaf in leaves])
        for leaf in leaves:
            needs |= leaf.needs
        values += [interpreter.value(ZERO, needs) for _ in step.eqn.outvars[solutions:]]
    interpreter.record(step, values, list(operands))
    return values
