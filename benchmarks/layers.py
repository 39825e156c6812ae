"""Scanned against unrolled layers, and layers recomputed in the backward pass against kept ones."""

from collections.abc import Sequence

import jax
import ml_collections

from benchmarks import measuring, train_step

KEPT, REMAT, UNROLLED = "scanned, kept", "scanned, recomputed (remat)", "unrolled, kept"


def variants(config: ml_collections.ConfigDict) -> dict[str, ml_collections.ConfigDict]:
    """One run with its layers computed in three ways, to the same numbers but for rounding."""
    runs = {}
    for name, switches in (
        (KEPT, {"scan_layers": True, "remat": False}),
        (REMAT, {"scan_layers": True, "remat": True}),
        (UNROLLED, {"scan_layers": False, "remat": False}),
    ):
        runs[name] = config.copy_and_resolve_references()
        runs[name].model.update(switches)
    return runs


def measure(
    config: ml_collections.ConfigDict | None = None,
    *,
    num_steps: int = 3,
    repeats: int = 5,
    devices: Sequence[jax.Device] | None = None,
) -> measuring.Result:
    """Speed, time to compile and planned memory of the step, for the three ways.

    Args:
      config: default SIBERT of 8 layers × 256, batch 16.
      num_steps: steps of one repeat.
      repeats: of each.
      devices: what the mesh is made of; None: all of them.
    """
    if config is None:
        config = train_step.model_config("sibert", width=256, depth=8, num_heads=4, batch_size=16)
    c = config.model
    return measuring.Result(
        title=f"The layers of SIBERT's step ({c.depth} layers × {c.width}) in three ways",
        unit="tokens/s",
        more_is_better=True,
        baseline=KEPT,
        rows=train_step.compare(
            variants(config), num_steps=num_steps, repeats=repeats, costs=True, devices=devices
        ),
        notes=["Temporary memory is what XLA plans for activations, gradients and the like."],
    )
