"""Sizes of what is checked and timed, and the meshes that are tried."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

SIBERT, BERT = "SIBERT, stateless recipe", "BERT, AdamW"
DATA_PARALLEL = "data parallelism alone"


class Sizes(NamedTuple):
    """Of everything that is checked and timed."""

    attention_lengths: tuple[int, ...] = (128, 512, 2048, 8192)  # tokens of a sequence
    attention_tokens: int = 16_384  # of a batch
    num_heads: int = 12  # of 64 features each
    num_calls: int = 20  # of attention, per repeat
    step_lengths: tuple[int, ...] = (128, 512)
    step_tokens: int = 8192  # of a batch, per device
    num_steps: int = 10  # per repeat
    repeats: int = 3
    batch_length: int = 512
    batches: tuple[int, int] = (8, 4096)  # the first and the greatest that is tried
    network_dtypes: tuple[str, ...] = ("float32", "bfloat16")
    check_length: int = 500  # no multiple of a kernel's block
    keys: Mapping[str, object] = MappingProxyType({})  # of the config
    check_keys: Mapping[str, object] = MappingProxyType({"model.depth": 2})


_TINY = {
    "model.width": 32,
    "model.ffn_width": 64,
    "model.depth": 1,
    "model.num_heads": 2,
    "model.vocab_size": 1024,
    "model.num_segments": 1,
    "model.scan_layers": False,
    "model.dropout": 0.0,
    "task.nsp": False,
}
FULL = Sizes()
# One program serves the check of the network, the step, the mesh and the batch.
TINY = Sizes(
    attention_lengths=(16,),
    attention_tokens=32,
    num_heads=1,
    num_calls=1,
    step_lengths=(16,),
    step_tokens=64,
    num_steps=2,
    repeats=1,
    batch_length=16,
    batches=(4, 4),
    network_dtypes=("bfloat16",),
    check_length=20,
    keys=_TINY,
    check_keys=_TINY,
)


def meshes(num_devices: int) -> list[tuple[int, int, int]]:
    """All sizes (data, fsdp, tensor) whose product is the number of devices, data alone first.

    Example:
      >>> meshes(2)
      [(2, 1, 1), (1, 2, 1), (1, 1, 2)]
    """
    divisors = [n for n in range(num_devices, 0, -1) if num_devices % n == 0]
    return [
        (data, fsdp, num_devices // data // fsdp)
        for data in divisors
        for fsdp in divisors
        if num_devices % (data * fsdp) == 0
    ]
