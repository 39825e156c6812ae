"""The objects of a run: batches, task, optimizer, compiled step; fresh or restored state."""

import contextlib
import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager as ContextManager

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sibert_jax import homogeneity, optim
from sibert_jax.checkpoint import Checkpoints, start_from
from sibert_jax.errors import ConfigError
from sibert_jax.tasks.task import Batch, Batches, Task, TaskData
from sibert_jax.train import build, length, sharding, workdir
from sibert_jax.train.evaluate import Evaluator, abstract_batch
from sibert_jax.train.health import BadSteps
from sibert_jax.train.run_config import RunConfig
from sibert_jax.train.step import Report, Step, TrainState

# Purposes of the seed, so that no two uses share random bits.
INIT, DROPOUT = 0, 1


def uncounted(phase: str) -> ContextManager:
    """For a start whose time nobody counts."""
    del phase
    return contextlib.nullcontext()


class Session:
    """A run on its mesh, before its first step. `start` makes the state and the step.

    Without data (None) there is only `lower`.
    """

    def __init__(self, run: RunConfig, mesh: Mesh, task: Task, data: TaskData | None):
        self.run = run.with_num_steps(1 if data is None else data.steps_per_epoch)
        build.check_schedules(self.run)
        self.mesh, self.task, self.data = mesh, task, data
        self.batch_size = run.train.global_batch_size
        abstract = jax.eval_shape(self._init_params, self.abstract_batch())
        self.param_shardings = sharding.param_shardings(abstract, mesh)
        self.abstract_params = _placed(abstract, self.param_shardings)
        self.mask = self.task.invariance_mask(abstract)
        c = run.train
        self.bad_steps = BadSteps(
            c.on_bad_step, c.spike_factor, c.max_skips_in_a_row, c.max_rollbacks
        )
        if run.model.is_scale_invariant:
            self._check_invariance()
        self._evaluator = Evaluator(task, mesh, self.batch_size, self.abstract_params)

    def _check_invariance(self) -> None:
        """Proves that the loss is invariant to the scale of the leaves that are said to be so."""

        task = build.analysable_task(self.task, self.run)

        def losses(params, batch):
            sums = task.sums(params, batch)
            return [sums[name] for name in task.loss_names]

        try:
            homogeneity.assert_scale_invariant(
                losses, self.abstract_params, self.abstract_batch(), mask=self.mask
            )
        except ValueError as error:
            raise ConfigError(f"model.arch={self.run.model.arch}: the loss is {error}") from None

    def abstract_batch(self) -> Batch:
        """Shapes and places of a global batch of the longest sequences."""
        return abstract_batch(self.task, self.mesh, self.batch_size, self.task.seq_lens[-1])

    def batch(self, index: int) -> Batch:
        """The batch of update `index` (from 0), on the devices."""
        return sharding.load_batch(self.data.train, index, self.mesh, self.batch_size)

    def start(
        self,
        checkpoints: Checkpoints,
        phase: Callable[[str], ContextManager] = uncounted,
        say: Callable[[str], None] = lambda text: None,
    ) -> TrainState:
        """Restores the newest checkpoint or initialises, and compiles the next step.

        Args:
          checkpoints: of this run.
          phase: called with "restore" and "compile" for a context that counts the time.
          say: takes a line about a length that has changed.
        """
        newest = checkpoints.latest_step()
        if newest is None:
            with phase("compile"):
                params = self._fresh_params()
                peak = self._peak_rates(params)
        else:
            length.check_steps(self.run, newest)
            description = checkpoints.description(newest)
            self._check_data(description)
            params, peak = None, (description["learning_rate"], description["weight_decay"])
        step = self._make_step(*peak)
        if newest is None:
            state = jax.jit(step.init, out_shardings=self._shardings)(params)
        else:
            with phase("restore"):
                state = self.restore(checkpoints, newest)
            updates = newest - int(state.health.skipped)
            if line := length.told(self.run, description["config"], peak[0], newest, updates):
                say(line)
        self._jitted, self._steps = self._jit(step), {}
        if (done := int(state.step)) < self.run.train.num_steps:
            with phase("compile"):
                index = done + int(state.health.batch_offset)
                self.compile(self.data.train.batch(index, slice(0, 1)))
        return state

    def restore(self, checkpoints: Checkpoints, step: int) -> TrainState:
        """The state of a checkpoint, on this mesh; after `start`."""
        like, before = self.abstract_state, checkpoints.description(step)["config"]
        params, rest = checkpoints.restore(step, like.params, _rest(like))
        state = TrainState(params=params, **rest)
        if before["train"]["log_every_steps"] == self.run.train.log_every_steps:
            return state
        if not length.is_logged(before, step):
            return state  # the row to come is of all steps since the last one
        empty = jax.jit(_zeros, out_shardings=self._shardings.window)(state.window)
        return state.replace(window=empty)

    def lower(self) -> jax.stages.Lowered:
        """The step on the longest sequences, without data and before any state exists."""
        c = self.run.optim
        # The rates are constants of the program: where they are to be found, any will do.
        rates = (1.0, c.eta_lambda) if c.eta_lambda else (c.learning_rate, c.weight_decay)
        jitted = self._jit(self._make_step(*rates))
        return jitted.lower(self.abstract_state, self.abstract_batch())

    def _make_step(self, learning_rate: float, weight_decay: float) -> Step:
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.recipe = build.build_recipe(self.run, learning_rate, weight_decay, self.mask)
        dropout_key = jax.random.fold_in(jax.random.key(self.run.seed), DROPOUT)
        step = Step(
            task=self.task,
            recipe=self.recipe,
            mask=self.mask,
            microbatches=self.run.train.microbatches,
            log_every_steps=self.run.train.log_every_steps,
            dropout_key=dropout_key if self.run.model.dropout > 0 else None,
            bad_steps=self.bad_steps,
        )
        abstract = jax.eval_shape(step.init, self.abstract_params)
        self._shardings = sharding.state_shardings(abstract, self.abstract_params, self.mesh)
        self.abstract_state = _placed(abstract, self._shardings)
        return step

    def _jit(self, step: Step) -> jax.stages.Wrapped:
        replicated = NamedSharding(self.mesh, P())
        report = Report(self.abstract_state.window, self.abstract_state.health)
        outs = (self._shardings, jax.tree.map(lambda _: replicated, report))
        fn = sharding.on_mesh(step.__call__, self.mesh)
        return jax.jit(fn, donate_argnums=0, out_shardings=outs)

    def is_compiled(self, batch: Batch) -> bool:
        """Whether there is a program for the length of a batch."""
        return batch["tokens"].shape[1] in self._steps

    def compile(self, batch: Batch) -> None:
        """Compiles the step for the length of a batch: one program a length, when it is first met.

        What else the shapes are is known, so that another one is an error, never a second trace.
        """
        seq_len = batch["tokens"].shape[1]
        abstract = abstract_batch(self.task, self.mesh, self.batch_size, seq_len)
        self._steps[seq_len] = self._jitted.lower(self.abstract_state, abstract).compile()

    def step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Report]:
        """One update by the program of the batch's length; `state` is donated."""
        if not self.is_compiled(batch):
            self.compile(batch)
        return self._steps[batch["tokens"].shape[1]](state, batch)

    def save(self, checkpoints: Checkpoints, state: TrainState, step: int) -> None:
        """Starts writing a checkpoint of everything that the next step depends on."""
        description = self.description() | self.provenance()
        checkpoints.save(step, state.params, _rest(state), description)

    def description(self) -> dict:
        """What the next step depends on besides the arrays, and a changed run would not have."""
        return {
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            "data_fingerprint": self.data.fingerprint,
            "examples_per_step": self.batch_size,
        }

    def provenance(self) -> dict:
        """Where a checkpoint comes from."""
        return {
            "git_commit": workdir.git_commit(),
            "mesh": dict(self.mesh.shape),
            "vocab_hash": self.data.tokenizer.hash,
            "labels": list(self.task.labels),
            "config": dataclasses.asdict(self.run),
        }

    def evaluate(self, params) -> dict[str, float]:
        """Metrics of the first `train.eval_batches` held-out batches, or of all."""
        valid = self.data.valid
        count = min(self.run.train.eval_batches or len(valid), len(valid))
        metrics = self.task.eval_metrics(self._evaluator.results(params, valid, count))
        return {f"eval/{name}": value for name, value in metrics.items()}

    def predict(self, params, batches: Batches) -> list:
        """What `task.eval_batch` returns for every batch, on the host."""
        return self._evaluator.results(params, batches, len(batches))

    def _init_params(self, batch: Batch):
        key = jax.random.fold_in(jax.random.key(self.run.seed), INIT)
        params = self.task.init(key, batch)
        scaled = jax.tree.map(lambda x: x * self.run.init_scale, params["encoder"])
        return {**params, "encoder": scaled}

    def _fresh_params(self):
        # One example is enough for the shapes that `init` needs.
        zeros = {
            name: np.zeros((1, *leaf.shape[1:]), leaf.dtype)
            for name, leaf in self.abstract_batch().items()
        }
        params = jax.jit(self._init_params, out_shardings=self.param_shardings)(zeros)
        source = self.run.checkpoint.init_from
        if not source:
            return params
        return start_from(source, params, self.provenance(), keys=self.run.model.function_keys)

    def _peak_rates(self, params) -> tuple[float, float]:
        """η and λ of the config, or those with which the first step turns by √(2ηλ)."""
        c = self.run.optim
        if c.eta_lambda == 0:
            return c.learning_rate, c.weight_decay
        recipe = build.build_recipe(self.run, 1.0, c.eta_lambda, self.mask)
        parts = self.run.train.microbatches
        probe = Step(self.task, recipe, self.mask, parts, 1, None, self.bad_steps)

        def norms(params, batch):
            grads, _ = probe.gradient(params, batch, None)
            measured = probe.measure(jnp.zeros((), jnp.int32), params, grads, grads)
            return measured["param_norm"], measured["grad_norm"]

        param_norm, grad_norm = jax.jit(sharding.on_mesh(norms, self.mesh))(params, self.batch(0))
        if not float(grad_norm) > 0:
            raise ConfigError(
                f"the gradient at initialisation has norm {float(grad_norm)}, so optim.eta_lambda "
                "cannot set η; give optim.learning_rate and optim.weight_decay."
            )
        learning_rate = float(
            optim.equilibrium.learning_rate_for_rotation(c.eta_lambda, param_norm, grad_norm)
        )
        return learning_rate, c.eta_lambda / learning_rate

    def _check_data(self, description: dict) -> None:
        if "data_fingerprint" not in description:
            raise ConfigError(
                "the workdir holds imported weights, not a run; start from them in another "
                "--workdir, with --config.checkpoint.init_from."
            )
        stored, found = description["data_fingerprint"], self.data.fingerprint
        if stored != found:
            raise ConfigError(
                f"the data has changed since the checkpoint was written (fingerprint {stored}, now "
                f"{found}); put the same files and vocabulary back, or start a new --workdir."
            )


def _zeros(tree):
    return jax.tree.map(jnp.zeros_like, tree)


def _rest(state: TrainState) -> dict:
    """Everything but the parameters, by name."""
    names = (field.name for field in dataclasses.fields(state) if field.name != "params")
    return {name: getattr(state, name) for name in names}


def _placed(abstract, shardings):
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        abstract,
        shardings,
    )


def check_divisible(run: RunConfig, mesh: Mesh) -> None:
    """Refuses a batch that does not divide, with both numbers."""
    batch, parts = run.train.global_batch_size, run.train.microbatches
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch % (shards * parts):
        raise ConfigError(
            f"train.global_batch_size={batch} does not divide by mesh.data × mesh.fsdp × "
            f"train.microbatches = {mesh.shape['data']} × {mesh.shape['fsdp']} × {parts}."
        )


def check_kernels(run: RunConfig, mesh: Mesh) -> None:
    """Refuses a kernel on devices that it is not for."""
    platform = mesh.devices.flat[0].platform
    if run.model.attention_impl == "pallas" and platform not in ("tpu", "gpu"):
        raise ConfigError(
            f'model.attention_impl="pallas" is a kernel for TPUs and GPUs; the devices here are '
            f'{platform}; set it to "auto", which changes rounding only.'
        )
