"""Compiles the training step for absent devices, and reports what it needs."""

import dataclasses
import math
import os
from collections.abc import Sequence

import jax
import ml_collections
from jax.experimental import topologies

from sibert_jax.errors import ConfigError
from sibert_jax.runtime.processes import one_line
from sibert_jax.tools.collectives import Collective, collectives
from sibert_jax.train import sharding
from sibert_jax.train.config import run_config
from sibert_jax.train.resolve import resolve
from sibert_jax.train.trainer import Shapes, Trainer, bare_task, check_divisible, check_kernels

MAX_DEVICES = 256
# The code for fake devices never runs, so optimizing it would waste time.
FAKE_DEVICE_OPTIONS = {"xla_backend_optimization_level": 0}


@dataclasses.dataclass(frozen=True)
class StepRequirements:
    """Memory, computation and communication of a step, per device.

    Attributes:
      platform: the target of the compiler: "cpu" (fake devices), or a TPU such as "TPU v5 lite".
      mesh: sizes of the mesh axes.
      examples: examples per step, over all devices.
      param_bytes: bytes of the parameters.
      optimizer_bytes: bytes of the rest of the state.
      batch_bytes: bytes of the examples.
      temporary_bytes: peak bytes of activations, gradients and gathered parameters, as planned by
        XLA.
      model_flops: FLOPs per step by formula, without recomputation and elementwise work.
      xla_flops: FLOPs counted by XLA, which counts the body of a loop once.
      collectives: transfers between devices, the largest first.
    """

    platform: str
    mesh: dict[str, int]
    examples: int
    param_bytes: int
    optimizer_bytes: int
    batch_bytes: int
    temporary_bytes: int
    model_flops: float
    xla_flops: float
    collectives: list[Collective]

    @property
    def sent_bytes(self) -> float:
        """Bytes that one device sends per step."""
        return sum(found.sent_bytes for found in self.collectives)


def compile_only(
    config: ml_collections.ConfigDict, devices: Sequence[jax.Device]
) -> StepRequirements:
    """Compiles the step of a config without data; nothing runs.

    Args:
      config: a config with every key of `default_config()`.
      devices: real or fake devices, or those of a described topology.

    Raises:
      ConfigError: the config is invalid, or the mesh does not fit the devices, the batch or the
        parameters.
    """
    run = run_config(resolve(config))
    mesh = sharding.make_mesh(run.mesh.data, run.mesh.fsdp, run.mesh.tensor, devices)
    check_divisible(run, mesh)
    check_kernels(run, mesh)
    run = run.with_num_steps(steps_per_epoch=1)
    if run.optim.eta_lambda:  # the learning rates are constants of the program; any value will do
        run = dataclasses.replace(run, optim=run.optim.with_rates(1.0, run.optim.eta_lambda))
    shapes = Shapes.of(run, mesh, bare_task(run))
    trainer = Trainer(run, shapes)
    device = mesh.devices.flat[0]
    options = FAKE_DEVICE_OPTIONS if device.platform == "cpu" else None
    seq_len = shapes.task.seq_lens[-1]
    compiled = trainer.step.lower(seq_len).compile(compiler_options=options)
    state, batch = trainer.abstract_state, shapes.longest_batch()
    flops = shapes.task.flops_per_token(seq_len) * shapes.batch_size * seq_len
    return StepRequirements(
        platform=device.device_kind,
        mesh=dict(mesh.shape),
        examples=shapes.batch_size,
        param_bytes=_bytes(state.params),
        optimizer_bytes=_bytes(state) - _bytes(state.params),
        batch_bytes=_bytes(batch),
        temporary_bytes=compiled.memory_analysis().temp_size_in_bytes,
        model_flops=flops / mesh.size,
        xla_flops=compiled.cost_analysis()["flops"],
        collectives=collectives(compiled.as_text(), dict(mesh.shape)),
    )


def _bytes(tree) -> int:
    """Returns the bytes on one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def described_devices(description: str) -> list[jax.Device]:
    """Returns absent devices to compile for; call before JAX is used.

    Args:
      description: a number of fake CPU devices, such as "8", or a TPU topology, such as "v5e:2x4".

    Raises:
      ConfigError: it is neither, or the TPU compiler is not installed.
    """
    jax.config.update("jax_platforms", "cpu")
    if not description.lstrip("-").isdecimal():
        return _topology(description)
    if not 1 <= int(description) <= MAX_DEVICES:
        raise ConfigError(f"--compile_only={description} must lie between 1 and {MAX_DEVICES}.")
    jax.config.update("jax_num_cpu_devices", int(description))
    return jax.devices()


def _topology(name: str) -> list[jax.Device]:
    # Otherwise it queries a TPU metadata server and complains that there is none.
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost"}
    # No device is opened, so several processes may compile at once.
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    try:
        return topologies.get_topology_desc(name, "tpu").devices
    except RuntimeError as error:
        if "not installed" in str(error):
            raise ConfigError(
                f"--compile_only={name} needs the compiler for TPUs, which runs on any Linux "
                "machine; install it with: pip install -e '.[train,tpu]'"
            ) from None
        raise ConfigError(
            f"--compile_only={name} is neither a number of devices nor a TPU topology such as "
            f"v5e:4x4: {one_line(error)}"
        ) from None


def markdown(report: StepRequirements) -> str:
    """Returns two tables: memory and computation per device, and communication."""
    memory = {
        "parameters": report.param_bytes,
        "optimizer": report.optimizer_bytes,
        "batch": report.batch_bytes,
        "activations and other temporaries": report.temporary_bytes,
    }
    memory["total"] = sum(memory.values())
    axes = " × ".join(f"{axis} {size}" for axis, size in report.mesh.items())
    lines = [
        f"Step of {report.examples:,} examples on {math.prod(report.mesh.values())} devices "
        f"({axes}), compiled for {report.platform}",
        "",
        "| per device | MB |",
        "| --- | ---: |",
        *(f"| {name} | {size / 1e6:,.3f} |" for name, size in memory.items()),
        "",
        "| per device | GFLOP per step |",
        "| --- | ---: |",
        f"| model, by formula | {report.model_flops / 1e9:,.3f} |",
        f"| as XLA counts (loop bodies once) | {report.xla_flops / 1e9:,.3f} |",
        "",
        "| collective | mesh axes | dtype | MB per call | calls per step | MB sent per step |",
        "| --- | --- | --- | ---: | ---: | ---: |",
        *(
            f"| {found.kind} | {' × '.join(found.axes)} | {found.dtype} | {found.bytes / 1e6:,.3f} "
            f"| {found.count:,} | {found.sent_bytes / 1e6:,.3f} |"
            for found in report.collectives
        ),
        f"| total | | | | {sum(found.count for found in report.collectives):,} | "
        f"{report.sent_bytes / 1e6:,.3f} |",
    ]
    return "\n".join(lines)
