"""Keys that cannot work end in one sentence and exit status 2, before anything is on disk."""

import signal

import pytest

from sibert_jax import main
from sibert_jax.configs import glue
from sibert_jax.errors import ConfigError
from sibert_jax.runtime.launch import exit_status
from sibert_jax.train.config import default_config, run_config
from sibert_jax.train.resolve import resolve

ADAMW = {
    "optim.name": "adamw",
    "optim.eta_lambda": 0.0,
    "optim.learning_rate": 1e-3,
    "optim.weight_decay": 0.0,
}
ETA_LAMBDA = {"optim.eta_lambda": 1e-3, "optim.learning_rate": 0.0, "optim.weight_decay": 0.0}
HYPERBALL = ADAMW | {"optim.name": "hyperball"}

# Changed keys -> key words of the sentence.
PRETRAINING = [
    ({"seed": -1}, "seed=-1 must be at least 0"),
    ({"seed": 2**63}, "seed=9223372036854775808 must be at least 0 and below 9223372036854775808"),
    ({"train.num_steps": 2**31}, "train.num_steps=2147483648 must be at least 0 and below"),
    ({"init_scale": 0.0}, "init_scale=0.0 must be positive and finite"),
    ({"task.name": "classify"}, "task.name='classify' is unknown; choose one of"),
    ({"task.head": "tied"}, "not scale invariant in the encoder of model.arch=sibert"),
    ({"optim.name": "equilibrium_sgd"}, "sets its rates from measurements .*: set it to 1"),
    ({"task.head": "invariant", "task.unigram_prior": False}, "task.unigram_prior=False"),
    ({"task.mask_rate": 1.5}, "task.mask_rate=1.5 must be positive and below 1"),
    ({"task.loss_scale": float("inf")}, "task.loss_scale=inf must be"),
    ({"task.nsp": True}, "task.nsp=True needs model.num_segments=2, found 1"),
    ({"model.arch": "roberta"}, "model.arch='roberta' is unknown"),
    ({"data.tokenizer": "byte_bpe"}, r"data.tokenizer='byte_bpe' has no \[MASK\], which task"),
    ({"model.num_heads": 3}, "model.width=16 is not divisible by model.num_heads=3"),
    ({"model.depth": 0}, "model.depth=0 must be at least 1"),
    ({"model.dropout": 1.0}, "model.dropout=1.0 must be at least 0 and below 1"),
    ({"model.attention_impl": "blockwise", "model.dropout": 0.1}, "model.dropout=0.1"),
    ({"model.attention_impl": "pallas", "model.arch": "bert"}, "model.arch='bert' uses softmax"),
    ({"data.seq_len": 64}, "data.seq_len=64 must lie between 8 and model.max_len=32"),
    ({"data.valid_fraction": 1.0}, "data.valid_fraction must lie between 0 and 1"),
    ({"data.source": "builtin"}, 'data.source="builtin" takes no data.path'),
    ({"data.weights": (1.0, 2.0)}, "data.weights holds 2 numbers for 1 corpora"),
    ({"optim.name": "sgdd"}, "optim.name='sgdd' is unknown; choose one of"),
    ({"optim.eta_lambda": 1e-3}, "sets both η and λ"),
    ({"optim.learning_rate": 0.0}, "optim.eta_lambda are both 0"),
    (
        {"optim.eta_lambda": 1.0, "optim.learning_rate": 0.0},
        "optim.eta_lambda=1.0 must be at least 0 and below 1",
    ),
    (ADAMW | ETA_LAMBDA, "optim.eta_lambda is for scale_invariant_sgd"),
    ({"optim.clip_factor": 1.0}, "optim.clip_factor=1.0 must be above 1"),
    ({"optim.warmup_steps": 12}, "optim.warmup_steps=12 and train.num_steps=12 do not fit"),
    ({"optim.head.warmup_steps": 50}, "optim.head.warmup_steps=50 and train.num_steps=12"),
    (
        {"optim.warmup_steps": 2, "optim.warmup_fraction": 0.1},
        "only one of them can set the warmup",
    ),
    ({"optim.warmup_fraction": 1.0}, "optim.warmup_fraction=1.0 must be at least 0 and below 1"),
    ({"optim.head.name": "same"}, 'optim.head.name="same" .* is not scale invariant'),
    ({"optim.head.learning_rate": float("nan")}, "optim.head.learning_rate=nan must be"),
    ({"optim.other.pattern": "("}, "is not a valid regular expression"),
    (ADAMW | {"optim.options": "nestrov=True"}, "no option 'nestrov'; did you mean 'nesterov'"),
    (ADAMW | {"optim.options": "b2=0,98"}, "optim.options.*cannot be read"),
    (ADAMW | {"optim.options": "0.9"}, "there is no name before '='"),
    (ADAMW | {"optim.options": "learning_rate=1"}, "adamw has no option 'learning_rate'"),
    (ADAMW | {"optim.options": "b2=high"}, "'b2=high' cannot be used with optim.name='adamw'"),
    ({"optim.head.options": "axis=1"}, "optim.head.options='axis=1': lamb has no option"),
    (HYPERBALL | {"optim.weight_decay": 0.1}, "optim: weight_decay=0.1 with the .* hyperball"),
    (HYPERBALL | {"optim.options": "inner=adm"}, "inner='adm' is unknown; choose one of"),
    ({"train.num_steps": 0}, "train.num_steps=0 and train.num_epochs=0.0: one of them"),
    ({"train.num_epochs": 3.0}, "train.num_steps=12 and train.num_epochs=3.0: one of them"),
    ({"train.microbatches": 0}, "train.microbatches=0 must be at least 1"),
    ({"train.spike_factor": 1.0}, "train.spike_factor=1.0 must be above 1"),
    ({"distributed.start": "slurm"}, "distributed.start='slurm' is unknown; choose one of"),
    ({"distributed.start": "explicit"}, "distributed.coordinator_address='' must be host:port"),
    ({"distributed.coordinator_address": "host:1"}, "distributed.start='single' takes no coord"),
    ({"distributed.process_id": 1}, "distributed.process_id=1 must be at least 0 and below"),
    ({"distributed.heartbeat_secs": 0}, "distributed.heartbeat_secs=0 must be at least 2"),
]
OTHER_TASKS = [
    ("causal_lm", {"task.top_p": 1.5}, "task.top_p=1.5 must be positive and at most 1"),
    ("classification", {"task.dataset": "sst-2"}, "task.dataset='sst-2' is unknown"),
    ("classification", {"data.path": ""}, "data.path is empty"),
    ("classification", {"data.num_seq_lens": 0}, "data.num_seq_lens=0 must be at least 1"),
    ("classification", {"train.num_steps": 9}, "train.num_steps=9 and train.num_epochs=3.0"),
    ("classification", {"optim.eta_lambda": 1e-3}, "optim.eta_lambda=0.001 sets both"),
    ("question_answering", {"data.seq_len": 66}, "data.seq_len=66 leaves no room for a context"),
]


def refused(config, changes, message):
    config.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=message) as error:
        run_config(resolve(config))
    assert "\n" not in str(error.value)
    assert exit_status(error.value) == 2


@pytest.mark.parametrize(
    ("task", "changes", "message"), [("pretraining", *row) for row in PRETRAINING] + OTHER_TASKS
)
def test_keys_that_cannot_work_are_named(config, task, changes, message):
    configs = {"pretraining": config, "classification": glue.get_config()}
    refused(configs.get(task) or default_config(task), changes, message)


@pytest.mark.parametrize(
    "key", ["model.width", "data.vocab", "checkpoint.init_from", "optim.options", "train.extend"]
)
def test_a_missing_key_is_named(config, key):
    *sections, name = key.split(".")
    with config.unlocked():
        del config[sections[0]][name]
    refused(config, {}, f"{key} is missing; start from default_config")


@pytest.mark.parametrize(
    ("section", "name", "message"),
    [
        ("optim", "momentum", "optim.momentum is not a key"),
        ("train", "num_step", "train.num_step is not a key; did you mean 'num_steps'?"),
        ("task", "dataset", "task.dataset is not a key"),
    ],
)
def test_a_key_that_there_is_not_is_named(config, section, name, message):
    with config.unlocked():
        config[section][name] = 1
    refused(config, {}, message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.modle.width=3"], "the config has no key 'modle'; did you mean 'model'?"),
        (["--config.optim.clip_factor=0.5"], "optim.clip_factor=0.5 must be above 1"),
        (["--config.mesh.data=3"], "needs 3 devices, but 8 are available"),
        (["--config.train.microbatches=5"], "train.global_batch_size=32 must be a multiple of"),
        (
            [
                "--config.model.attention_impl=pallas",
                "--config.model.attention_window=0",
                "--config.model.global_attention_every=0",
            ],
            "is a kernel for TPUs and GPUs; the devices",
        ),
        (["--config.data.source=text"], 'data.source="text" needs data.path, which is empty'),
        (["--profile=3:9999"], "--profile=3:9999 ends after the last step"),
        (["--config=nowhere.py"], "there is no file 'nowhere.py'"),
    ],
)
def test_the_command_ends_with_one_sentence(arguments, message, tmp_path, capfd):
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.raises(SystemExit) as ended:
        main.main(["--config=demo", f"--workdir={tmp_path / 'run'}", *arguments])
    for number, handler in handlers.items():  # a command keeps its own until its process ends
        signal.signal(number, handler)
    assert ended.value.code == 2
    written = capfd.readouterr().err
    assert written.startswith("error: ")
    assert message in written
    assert written.count("\n") == 1
    assert not list(tmp_path.iterdir())
