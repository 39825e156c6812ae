"""Parameter trees with one entry per layer, whether or not the model scans over its layers.

Exchange formats name layers individually; a model that scans stacks them on a leading axis.
"""

from typing import Any

import jax
import numpy as np

from sibert_jax.trees import nest


def flatten(params: dict, *, scan_layers: bool) -> dict[str, np.ndarray]:
    """Returns {"encoder/layers/0/...": array} for a parameter tree.

    Args:
      params: {"encoder": ..., "head": ...}, arrays of any framework.
      scan_layers: whether the tree stacks its layers, as in `ModelConfig.scan_layers`.
    """
    flat = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name, array = jax.tree_util.keystr(path, simple=True, separator="/"), np.asarray(leaf)
        if scan_layers and name.startswith("encoder/layers/layer/"):
            rest = name.removeprefix("encoder/layers/layer/")
            flat |= {f"encoder/layers/{i}/{rest}": layer for i, layer in enumerate(array)}
        else:
            flat[name.replace("encoder/layers/layer_", "encoder/layers/")] = array
    return flat


def unflatten(flat: dict[str, Any], *, scan_layers: bool) -> dict:
    """The inverse of `flatten`; an entry may be a tree of arrays, which are then stacked."""
    stacks: dict[str, dict[int, Any]] = {}
    named = {}
    for name, array in flat.items():
        if not name.startswith("encoder/layers/"):
            named[name] = array
            continue
        i, rest = name.removeprefix("encoder/layers/").split("/", 1)
        if scan_layers:
            stacks.setdefault(f"encoder/layers/layer/{rest}", {})[int(i)] = array
        else:
            named[f"encoder/layers/layer_{i}/{rest}"] = array
    for name, layers in stacks.items():
        in_order = (layers[i] for i in range(len(layers)))
        named[name] = jax.tree.map(lambda *leaves: np.stack(leaves), *in_order)
    return nest(named)
