"""The real training step of a run, compiled and timed on batches that are on the device already."""

import dataclasses
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from benchmarks import measuring
from sibert_jax.configs import gpt, mini
from sibert_jax.tasks.task import Batch, Task, TaskData
from sibert_jax.train import sharding
from sibert_jax.train.config import RunConfig, run_config
from sibert_jax.train.loop import load_batch
from sibert_jax.train.resolve import resolve
from sibert_jax.train.run import load_task
from sibert_jax.train.start import find_rates, fresh_params
from sibert_jax.train.step import TrainState
from sibert_jax.train.trainer import Shapes, Trainer, bare_task

MEGABYTE = 1e6


@dataclasses.dataclass(frozen=True)
class Started:
    """A run whose step is compiled, before its first step."""

    trainer: Trainer
    data: TaskData
    state: TrainState

    @property
    def batch_size(self) -> int:
        """Rows of a batch."""
        return self.trainer.shapes.batch_size

    @property
    def tokens_per_step(self) -> int:
        """Of pretraining, whose batches have one length."""
        return self.batch_size * self.trainer.run.data.seq_len

    def batch(self, index: int) -> Batch:
        """The batch of update `index`, from 0, on the devices."""
        return load_batch(self.trainer.shapes, self.data, index)


def model_config(
    arm: str,
    *,
    width: int = 128,
    depth: int = 2,
    num_heads: int = 2,
    batch_size: int = 32,
    vocab_size: int = 8192,
) -> ml_collections.ConfigDict:
    """An arm of `configs/mini.py` or a variant of `configs/gpt.py`, on the builtin text.

    Args:
      arm: "sibert" (SGD), "paper" (SGD, LAMB on the head) or "bert" (AdamW); "gpt:mini" or
        "gpt:mini_adamw".
      width: features of the residual stream.
      depth: layers.
      num_heads: divides the width.
      batch_size: examples of a step.
      vocab_size: WordPieces.
    """
    name, _, variant = arm.rpartition(":")
    config = gpt.get_config(variant) if name == "gpt" else mini.get_config(arm)
    config.data.source = "builtin"
    config.data.path = config.data.valid_path = ""
    config.model.update(width=width, depth=depth, num_heads=num_heads, ffn_width=4 * width)
    config.model.vocab_size = vocab_size
    config.train.global_batch_size = batch_size
    return config


class RandomBatches:
    """Endless pretraining batches of random tokens without padding, the same on every call.

    Args:
      task: the task of a pretraining.
    """

    def __init__(self, task: Task):
        self._task, (self._seq_len,) = task, task.seq_lens
        vocab_size = task.cfg.vocab_size
        self._limits = {
            "tokens": vocab_size,
            "segments": 2 if task.cfg.has_segments else 1,
            "masked_targets": vocab_size,
            "masked_positions": self._seq_len,
            "nsp_labels": 2,
        }

    def batch(self, step: int, rows: slice) -> dict[str, np.ndarray]:
        """Rows of the batch of a step: integers below their limits, and ones."""
        rng = np.random.default_rng((step, rows.start))
        shapes = self._task.abstract_batch(rows.stop - rows.start, self._seq_len)
        limits = self._limits
        return {
            name: rng.integers(limits[name], size=leaf.shape, dtype=leaf.dtype)
            if name in limits
            else np.ones(leaf.shape, leaf.dtype)
            for name, leaf in shapes.items()
        }


def load_random(run: RunConfig, progress: Callable[[str], None]) -> tuple[Task, TaskData]:
    """As `load_task` for a pretraining, with `RandomBatches` and without a tokenizer."""
    del progress
    task = bare_task(run)
    batches = RandomBatches(task)
    return task, TaskData(batches, batches, "random", 1, None, (), "mlm_loss", True)


def start(
    config: ml_collections.ConfigDict,
    devices: Sequence[jax.Device] | None = None,
    load: Callable[..., tuple[Task, TaskData]] = load_task,
) -> Started:
    """A run whose step is compiled, and its first state.

    Args:
      config: the run.
      devices: what the mesh is made of; None: all of them.
      load: `load_task` or `load_random`.
    """
    run = run_config(resolve(config))
    mesh = sharding.make_mesh(run.mesh.data, run.mesh.fsdp, run.mesh.tensor, devices)
    task, data = load(run, progress=measuring.say)
    run = run.with_num_steps(data.steps_per_epoch)
    measuring.say(f"compiling the {run.model.arch} step")
    shapes = Shapes.of(run, mesh, task)
    params, batch = fresh_params(run, shapes), load_batch(shapes, data, 0)
    trainer = Trainer(find_rates(run, shapes, params, batch), shapes)
    trainer.step.compile(batch)
    return Started(trainer, data, trainer.init(params))


def step_timer(run: Started, num_steps: int) -> Callable[[], float]:
    """A function that takes the first steps of a run, always the same, and returns tokens/s."""
    tokens = num_steps * run.tokens_per_step
    batches = [run.batch(index) for index in range(num_steps)]

    def timed() -> float:
        after = copy(run.state)
        since = time.perf_counter()
        for batch in batches:
            after, _ = run.trainer.step(after, batch)
        jax.block_until_ready(after)
        return tokens / (time.perf_counter() - since)

    return timed


def copy(state: TrainState) -> TrainState:
    """A state to be donated, while the first one stays."""
    return jax.block_until_ready(jax.tree.map(jnp.copy, state))


def compile_costs(run: Started) -> dict[str, float]:
    """Seconds to compile the step once more, and the memory that XLA plans for its temporaries."""
    lowered = run.trainer.step.lower(run.trainer.run.data.seq_len)
    since = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - since
    planned = compiled.memory_analysis().temp_size_in_bytes
    return {"temporary MB": planned / MEGABYTE, "seconds to compile": seconds}


def compare(
    configs: dict[str, ml_collections.ConfigDict],
    *,
    num_steps: int,
    repeats: int,
    group: str = "",
    costs: bool = False,
    devices: Sequence[jax.Device] | None = None,
) -> list[measuring.Row]:
    """Speed of the compiled training steps of several runs on batches that are on the device.

    Args:
      configs: name to run, the baseline first.
      num_steps: steps of one repeat.
      repeats: of each run.
      group: of all the rows.
      costs: with `compile_costs` as further columns.
      devices: what the mesh is made of; None: all of them.

    Returns:
      A row a run, in tokens/s.
    """
    started = {name: start(config, devices) for name, config in configs.items()}
    more = {name: compile_costs(run) for name, run in started.items() if costs}
    timed = {name: step_timer(run, num_steps) for name, run in started.items()}
    values = measuring.in_turn(timed, repeats)
    return measuring.rows(values, next(iter(configs)), group, more)
