"""Parameter trees with one entry a layer, whether the model scans over its layers or not.

Exchange formats name layers one by one; a model that scans keeps them stacked on a leading axis.
"""

from typing import Any

import jax
import numpy as np

from sibert_jax.trees import nest


def flatten(params: dict, *, scan_layers: bool) -> dict[str, np.ndarray]:
    """{"encoder/layers/0/...": array} of a parameter tree.

    Args:
      params: {"encoder": ..., "head": ...}, arrays of any framework.
      scan_layers: as `ModelConfig.scan_layers`: how the tree holds its layers.
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
