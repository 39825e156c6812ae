"""Whether what is stored is what is wanted; a difference is told by leaf, shapes and likely key."""

import re
from typing import Any

from sibert_jax.errors import CheckpointError

# Leaf name and axis -> the config key that sets its size. First match wins; the axis counts from
# the end, so that stacked and single layers share a row; None: whether the leaf exists at all.
SIZES = (
    (r"embed/token|head/output", {-2: "model.vocab_size", -1: "model.width"}),
    (r"head/output_bias", {-1: "model.vocab_size", None: "task.head"}),
    (r"embed/position", {-2: "model.max_len", -1: "model.width"}),
    (r"embed/segment", {-1: "model.width", None: "model.num_segments"}),
    (r"attention/(query|key|value)/kernel", {-3: "model.width", -2: "model.num_heads"}),
    (r"attention/(query|key|value)/bias", {-2: "model.num_heads", None: "model.qkv_bias"}),
    (r"attention/out/kernel", {-3: "model.num_heads", -1: "model.width"}),
    (r"ffn/up/kernel", {-2: "model.width", -1: "model.ffn_width"}),
    (r"ffn/up/bias", {-1: "model.ffn_width"}),
    (r"ffn/down/kernel", {-2: "model.ffn_width", -1: "model.width"}),
    (r"stem/kernel|_norm/(scale|bias)", {None: "model.arch", -1: "model.width"}),
    (r"layers/layer_\d+/", {None: "model.depth or model.scan_layers"}),
    (r"layers/layer/", {None: "model.scan_layers"}),
    (r"head/(nsp|pooler)", {-2: "model.width", None: "task.nsp"}),
    (r"head/transform", {-1: "model.width", None: "task.head"}),
    (r"opt_state/", {None: "optim.name or optim.head.name"}),
)


def likely_key(name: str, stored: tuple[int, ...] | None, wanted: tuple[int, ...] | None) -> str:
    """The config key that probably explains a difference; "" if none comes to mind."""
    rows = [sizes for pattern, sizes in SIZES if re.search(pattern, name)]
    if stored is None or wanted is None or len(stored) != len(wanted):
        return next((sizes[None] for sizes in rows if None in sizes), "")
    for axis in range(-len(wanted), 0):
        if stored[axis] != wanted[axis]:
            known = next((sizes[axis] for sizes in rows if axis in sizes), "")
            if not known and axis == -len(wanted) and "layers/layer/" in name:
                return "model.depth"
            return known
    return ""


def check_same_leaves(where: str, stored: dict[str, dict], wanted: dict[str, Any]) -> None:
    """Refuses another shape or dtype, a missing and a superfluous leaf, each by its name.

    Args:
      where: what the leaves are stored in, for the message.
      stored: "shape" and "dtype" by name, from the manifest.
      wanted: arrays or ShapeDtypeStructs by name.
    """
    for name, leaf in wanted.items():
        shape = tuple(leaf.shape)
        if name not in stored:
            hint = _hint(likely_key(name, None, shape))
            raise CheckpointError(
                f"{where} has no leaf {name} {shape}; it is of another model{hint}."
            )
        found, dtype = tuple(stored[name]["shape"]), stored[name]["dtype"]
        if found != shape or dtype != str(leaf.dtype):
            hint = _hint(likely_key(name, found, shape))
            raise CheckpointError(
                f"leaf {name} of {where} is {found} {dtype}, wanted {shape} {leaf.dtype}; restore "
                f"it with the settings it was written with{hint}."
            )
    if extra := sorted(stored.keys() - wanted.keys()):
        found = tuple(stored[extra[0]]["shape"])
        hint = _hint(likely_key(extra[0], found, None))
        raise CheckpointError(
            f"{where} has the leaf {extra[0]} {found}, which this run has not; it is of another "
            f"model{hint}."
        )


def _hint(key: str) -> str:
    return f" (probably {key})" if key else ""
