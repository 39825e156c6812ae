"""Orbax checkpoints verified by digests, restored onto any mesh, with errors that name the leaf.

Command line: python -m sibert_jax.checkpoint {list,verify,show,diff,export} DIR.
"""

from sibert_jax import lazy
from sibert_jax.errors import CheckpointError

__all__ = [
    "CheckpointError",
    "Checkpoints",
    "checkpoints_in",
    "chosen",
    "newest_verified",
    "restore_all_params",
    "restore_params",
    "start_from",
    "steps_in",
]

__getattr__ = lazy.attributes(
    __name__,
    {
        "Checkpoints": "checkpoints",
        "checkpoints_in": "manifest",
        "chosen": "choose",
        "newest_verified": "choose",
        "restore_all_params": "transfer",
        "restore_params": "transfer",
        "start_from": "transfer",
        "steps_in": "manifest",
    },
)
