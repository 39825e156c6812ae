"""Verified Orbax checkpoints: proven by digests, restored onto any mesh, errors that name the leaf.

Command line: python -m sibert_jax.checkpoint {list,verify,show,diff,export} DIR.
"""

from sibert_jax.checkpoint.checkpoints import Checkpoints
from sibert_jax.checkpoint.errors import CheckpointError
from sibert_jax.checkpoint.transfer import newest_verified, restore_params, start_from

__all__ = ["CheckpointError", "Checkpoints", "newest_verified", "restore_params", "start_from"]
