"""What is timed on an accelerator: attention, the training step, meshes, large batches.

Each function returns a part of one group of `report.py`: tokens/s by contestant, one per repeat.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import ml_collections

from benchmarks import attention as forms
from benchmarks import measuring, optimizers, train_step
from benchmarks.accelerator.sizes import BERT, SIBERT, Sizes
from benchmarks.rival import last_line
from sibert_jax.configs import bert_base, sibert_base
from sibert_jax.runtime.peak_flops import peak_flops
from sibert_jax.train import sharding


def config(name: str, length: int, batch_size: int, keys: Mapping) -> ml_collections.ConfigDict:
    """Base, SIBERT or BERT, with sequences of `length` tokens and further keys."""
    found = {SIBERT: sibert_base, BERT: bert_base}[name].get_config()
    found.data.seq_len, found.train.global_batch_size = length, batch_size
    found.update_from_flattened_dict(keys)
    return found


def attention(sizes: Sizes, length: int) -> dict:
    """Forward and backward pass of each implementation; those that fail are noted."""
    platform = jax.default_backend()
    dtype = jnp.float32 if platform == "cpu" else jnp.bfloat16
    shape = (3, max(1, sizes.attention_tokens // length), length, sizes.num_heads, 64)
    inputs = jax.random.normal(jax.random.key(0), shape, dtype)
    timed, more, notes = {}, {}, []
    for name, attend in forms.contestants(platform).items():
        try:
            step = forms.compiled(attend, inputs)
            timed[name] = forms.timer(step, inputs, sizes.num_calls)
        except Exception as error:  # out of memory, or not supported by this device
            notes.append(f"Length {length:,}: {name} failed: {last_line(error)}")
        else:
            more[name] = {forms.MEMORY: step.memory_analysis().temp_size_in_bytes / 2**20}
    rivals = {"gpu": forms.CUDNN, "tpu": forms.FLASH}
    baseline = rivals[platform] if rivals.get(platform) in timed else forms.SOFTMAX
    return {
        "group": f"attention, length {length:,}",
        "baseline": baseline,
        "values": measuring.in_turn(timed, sizes.repeats),
        "more": more,
        "notes": notes,
    }


def step(sizes: Sizes, length: int) -> dict:
    """The training step of base on one device, by the recommended recipe and as BERT."""
    devices = jax.devices()[:1]
    batch_size = max(1, sizes.step_tokens // length)
    runs = {
        name: train_step.start(
            config(name, length, batch_size, sizes.keys), devices, train_step.load_random
        )
        for name in (BERT, SIBERT)
    }
    timed = {name: train_step.step_timer(run, sizes.num_steps) for name, run in runs.items()}
    values = measuring.in_turn(timed, sizes.repeats)
    more = {}
    for name, run in runs.items():
        tokens_per_second = measuring.median_and_range(values[name])[0]
        step_ms = 1e3 * run.tokens_per_step / tokens_per_second
        more[name] = {"ms a step": step_ms, "update's share": _update_ms(run, sizes) / step_ms}
        more[name] |= _mfu(run, tokens_per_second)
    return {
        "group": f"training step, length {length}, batch {batch_size}",
        "baseline": BERT,
        "values": values,
        "more": more,
    }


def _update_ms(run: train_step.Started, sizes: Sizes) -> float:
    tx, grads = run.trainer.optimizer.tx, run.state.params  # the numbers do not matter
    update = optimizers.Updates(
        optimizers.compiled(tx, grads), tx.init(grads), grads, sizes.num_steps
    )
    return measuring.median_and_range([update() for _ in range(sizes.repeats)])[0]


def _mfu(run: train_step.Started, tokens_per_second: float) -> dict[str, float]:
    devices, c = run.trainer.shapes.mesh.devices.flat, run.trainer.run
    peak = peak_flops(devices[0].device_kind, c.model.dtype)
    if peak is None:
        return {}
    flops = run.trainer.shapes.task.flops_per_token(c.data.seq_len) * tokens_per_second
    return {"MFU": flops / (peak * len(devices))}


def batch(sizes: Sizes, batch_size: int) -> dict:
    """The training step of the recommended recipe on one device, with a batch that may not fit."""
    made = config(SIBERT, sizes.batch_length, batch_size, sizes.keys)
    run = train_step.start(made, jax.devices()[:1], train_step.load_random)
    name = f"batch {batch_size:,}"
    values = measuring.in_turn({name: train_step.step_timer(run, 2)}, sizes.repeats)
    more = {name: _mfu(run, measuring.median_and_range(values[name])[0])}
    group = f"batches per device, length {sizes.batch_length}"
    return {"group": group, "values": values, "more": more}


def mesh(sizes: Sizes, shape: tuple[int, int, int]) -> dict:
    """The training step of the recommended recipe on all devices, on one mesh."""
    length = sizes.step_lengths[0]
    batch_size = math.prod(shape) * max(1, sizes.step_tokens // length)
    made = config(SIBERT, length, batch_size, sizes.keys)
    # The tables are split over `tensor` too, and 30,522 is 2 × 3 × 5,087.
    made.model.vocab_size = -(-made.model.vocab_size // 1024) * 1024
    made.mesh.update(dict(zip(sharding.AXES, shape)))
    run = train_step.start(made, load=train_step.load_random)
    name = " × ".join(map(str, shape))
    timed = {name: train_step.step_timer(run, sizes.num_steps)}
    return {
        "group": f"mesh data × fsdp × tensor, length {length}, batch {batch_size}",
        "values": measuring.in_turn(timed, sizes.repeats),
        "more": {},
    }
