"""The step of SIBERT against that of BERT, each with its own optimizer."""

from collections.abc import Sequence

import jax
import ml_collections

from benchmarks import measuring, train_step

BERT, SIBERT = "BERT, AdamW", "SIBERT, SGD recipe, LAMB head"


def measure(
    configs: dict[str, ml_collections.ConfigDict] | None = None,
    *,
    num_steps: int = 10,
    repeats: int = 5,
    devices: Sequence[jax.Device] | None = None,
) -> measuring.Result:
    """Speed of the compiled steps of mini BERT and mini SIBERT.

    Args:
      configs: name to run, the baseline first; default the two above.
      num_steps: steps of one repeat.
      repeats: runs of each.
      devices: what the mesh is made of; None: all of them.
    """
    if configs is None:
        configs = {name: train_step.model_config(arch) for name, arch in _ARCHS.items()}
    return measuring.Result(
        title="One training step, 2 layers × 128, 8,192 WordPieces, length 128, batch 32",
        unit="tokens/s",
        more_is_better=True,
        baseline=next(iter(configs)),
        rows=train_step.compare(configs, num_steps=num_steps, repeats=repeats, devices=devices),
        notes=[],
    )


_ARCHS = {BERT: "bert", SIBERT: "sibert"}
