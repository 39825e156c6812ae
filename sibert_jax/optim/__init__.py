"""Gradient transformations for scale-invariant networks, compatible with any optax chain.

Imports only jax, optax and numpy, and no other part of sibert_jax. PSGD is imported on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from sibert_jax.optim import equilibrium
from sibert_jax.optim.blocks import ROWS, Rows
from sibert_jax.optim.equilibrium_sgd import (
    ScaleToEquilibriumState,
    equilibrium_sgd,
    scale_to_equilibrium,
)
from sibert_jax.optim.hyperball import HyperballState, hyperball
from sibert_jax.optim.orthogonalization import scale_by_orthogonalization, scale_by_whitening
from sibert_jax.optim.partition import PartitionByInvarianceState, partition_by_invariance
from sibert_jax.optim.relative_clip import RelativeClipState, clip_by_relative_global_norm
from sibert_jax.optim.rotation import effective_learning_rate, radial_cosine, rotation, sgd_rotation
from sibert_jax.optim.scale_invariant_sgd import scale_invariant_sgd
from sibert_jax.optim.schedules import make_schedule
from sibert_jax.optim.sgd_sai import SgdSaiState, gradient_snr, sgd_sai
from sibert_jax.optim.sign_descent import SignDescentState, sign_descent
from sibert_jax.optim.sinkhorn import scale_by_sinkhorn
from sibert_jax.optim.track_rotation import TrackRotationState, track_rotation
from sibert_jax.optim.unit_rms import UnitClipState, clip_by_relative_unit_norm, scale_by_unit_rms

if TYPE_CHECKING:
    from sibert_jax.optim.psgd import (
        KronPreconditioner,
        LowRankPreconditioner,
        MatrixFreePreconditioner,
        PsgdState,
        gradient_and_hvp,
        scale_by_psgd_kron,
        scale_by_psgd_low_rank,
        scale_by_psgd_matrix_free,
    )

__all__ = [
    "ROWS",
    "HyperballState",
    "KronPreconditioner",
    "LowRankPreconditioner",
    "MatrixFreePreconditioner",
    "PartitionByInvarianceState",
    "PsgdState",
    "RelativeClipState",
    "Rows",
    "ScaleToEquilibriumState",
    "SgdSaiState",
    "SignDescentState",
    "TrackRotationState",
    "UnitClipState",
    "clip_by_relative_global_norm",
    "clip_by_relative_unit_norm",
    "effective_learning_rate",
    "equilibrium",
    "equilibrium_sgd",
    "gradient_and_hvp",
    "gradient_snr",
    "hyperball",
    "make_schedule",
    "partition_by_invariance",
    "radial_cosine",
    "rotation",
    "scale_by_orthogonalization",
    "scale_by_psgd_kron",
    "scale_by_psgd_low_rank",
    "scale_by_psgd_matrix_free",
    "scale_by_sinkhorn",
    "scale_by_unit_rms",
    "scale_by_whitening",
    "scale_invariant_sgd",
    "scale_to_equilibrium",
    "sgd_rotation",
    "sgd_sai",
    "sign_descent",
    "track_rotation",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("sibert_jax.optim.psgd"), name)
