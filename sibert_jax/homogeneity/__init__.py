"""Scaling symmetries of any JAX function, found exactly from its jaxpr. Depends only on jax.

report = analyse(loss, params, batch) report.is_invariant(mask)      # when the masked leaves are
scaled jointly? report.symmetries()            # all exponents that leave the outputs unchanged
report.obstruction(mask)       # the first line that breaks it
"""

from typing import TYPE_CHECKING

from sibert_jax import lazy
from sibert_jax.homogeneity.analyse import Report, analyse, assert_scale_invariant
from sibert_jax.homogeneity.rules import degree_rule, kernel_degree_rule

if TYPE_CHECKING:
    from sibert_jax.homogeneity.numeric import euler_residual, rescaling_error, unproven_symmetries
    from sibert_jax.homogeneity.obstruction import Obstruction

__all__ = [
    "Obstruction",
    "Report",
    "analyse",
    "assert_scale_invariant",
    "degree_rule",
    "euler_residual",
    "kernel_degree_rule",
    "rescaling_error",
    "unproven_symmetries",
]

__getattr__ = lazy.attributes(
    __name__,
    {
        "Obstruction": "obstruction",
        "euler_residual": "numeric",
        "rescaling_error": "numeric",
        "unproven_symmetries": "numeric",
    },
)
