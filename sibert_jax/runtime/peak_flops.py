"""Peak FLOP/s per device from vendors' data sheets: the denominator of `perf/mfu`."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Peak:
    """Peak FLOP/s of dense matrix products per JAX device, without structured sparsity.

    Attributes:
      bfloat16: FLOP/s with bfloat16 operands.
      float32: FLOP/s with float32 operands at JAX's default precision, which TPUs round to bfloat16
        and GPUs since the A100 to TF32.
    """

    bfloat16: float
    float32: float


def _tpu(bfloat16: float) -> Peak:
    return Peak(bfloat16, bfloat16)


# By `jax.Device.device_kind`. A JAX device is one chip, except for half a chip on TPU v2, v3 and
# v7x.
PEAKS = {
    "TPU v2": _tpu(45e12 / 2),
    "TPU v3": _tpu(123e12 / 2),
    "TPU v4": _tpu(275e12),
    "TPU v5 lite": _tpu(197e12),
    "TPU v5e": _tpu(197e12),
    "TPU v5": _tpu(459e12),
    "TPU v5p": _tpu(459e12),
    "TPU v6 lite": _tpu(918e12),
    "TPU v6e": _tpu(918e12),
    "TPU7x": _tpu(2307e12 / 2),
    # No TF32 and no bfloat16 units: both are computed as float32.
    "Tesla V100-SXM2-16GB": Peak(15.7e12, 15.7e12),
    "Tesla V100-SXM2-32GB": Peak(15.7e12, 15.7e12),
    "Tesla V100-PCIE-16GB": Peak(14e12, 14e12),
    "Tesla V100-PCIE-32GB": Peak(14e12, 14e12),
    "NVIDIA A100-SXM4-40GB": Peak(312e12, 156e12),
    "NVIDIA A100-SXM4-80GB": Peak(312e12, 156e12),
    "NVIDIA A100-PCIE-40GB": Peak(312e12, 156e12),
    "NVIDIA A100 80GB PCIe": Peak(312e12, 156e12),
    "NVIDIA H100 80GB HBM3": Peak(989.5e12, 494.5e12),
    "NVIDIA H100 PCIe": Peak(756.5e12, 378e12),
    "NVIDIA H100 NVL": Peak(835.5e12, 417.5e12),
    "NVIDIA H200": Peak(989.5e12, 494.5e12),
    "NVIDIA B200": Peak(2250e12, 1100e12),
}


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """Returns peak FLOP/s of one device for matrix products in a dtype; None: unknown.

    Args:
      device_kind: the value of `jax.Device.device_kind`.
      dtype: `model.dtype`, "bfloat16" or "float32".

    Example:
      >>> peak_flops("NVIDIA A100-SXM4-80GB", "bfloat16")
      312000000000000.0
    """
    peak = PEAKS.get(device_kind)
    return None if peak is None else {"bfloat16": peak.bfloat16, "float32": peak.float32}[dtype]
