"""What a config takes from the run that it starts from, and which differences are refused."""

import json
import re

import pytest

from sibert_jax.configs import glue, gpt, mini, squad1
from sibert_jax.errors import ConfigError
from sibert_jax.model.config import INHERITED_KEYS, fresh_encoder
from sibert_jax.train.config import default_config, run_config
from sibert_jax.train.resolve import resolve

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SMALL = {"vocab_size": 20, "max_len": 64, "num_segments": 1, "width": 24, "depth": 3}
SMALL |= {"num_heads": 4, "ffn_width": 40, "scan_layers": False}


def make_run(directory, config=None, **model):
    """A workdir, as far as it is looked at before anything is read from its checkpoint."""
    config = default_config() if config is None else config
    config.model.update(SMALL | model)
    config = resolve(config)
    (directory / "checkpoints/5").mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config.to_dict()))
    pieces = [*SPECIAL, *(f"w{i}" for i in range(config.model.vocab_size - len(SPECIAL)))]
    (directory / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return directory


@pytest.fixture
def source(tmp_path):
    return make_run(tmp_path / "source")


def start(config, source, **overrides):
    """The config as overridden on a command line."""
    config.checkpoint.init_from = str(source)
    for key, value in overrides.items():
        section, name = key.split("__")
        config[section][name] = value
    return config


@pytest.mark.parametrize(
    ("configs", "variant", "arch"),
    [
        (glue, "task=rte", "sibert_qk_norm"),
        (glue, "task=rte", "sibert_sandwich"),
        (squad1, "size=mini", "sibert"),
        (squad1, "size=mini", "bert"),
    ],
)
def test_an_encoder_of_any_size_and_kind_is_taken_with_its_vocabulary(
    tmp_path, configs, variant, arch
):
    source = make_run(tmp_path / "a", arch=arch, norm_eps=1e-5, branch_scaling="none", dropout=0.3)
    variant += ",arch=bert" if arch == "bert" else ""
    config = start(configs.get_config(variant), source)
    lines = []
    resolved = resolve(config, tmp_path / "new", lines.append)
    wanted = SMALL | {"arch": arch, "norm_eps": 1e-5, "branch_scaling": "none", "dropout": 0.0}
    assert {key: resolved.model[key] for key in wanted} == wanted
    assert resolved.data.vocab == str(source / "vocab.txt")
    assert resolved.data.seq_len == 64  # no more than the position table has rows
    assert None not in resolved.model.values()
    (line,) = lines
    assert line.startswith(f"from {source}: ")
    assert {"model.width=24", "model.norm_eps=1e-05"} <= set(re.split("[ ,]+", line))
    assert ("branch_scaling" in line) == (arch in ("sibert", "sibert_qk_norm"))
    run_config(resolved)
    assert config.model.width is None  # a copy was filled in


def test_a_fresh_encoder_is_a_mini_one_of_its_vocabulary(source):
    config = glue.get_config("task=rte,arch=bert")
    config.data.vocab = str(source / "vocab.txt")
    resolved = resolve(config)
    wanted = vars(fresh_encoder("bert")) | {"vocab_size": 20, "norm_eps": 1e-12}
    assert all(resolved.model[key] == wanted[key] for key in INHERITED_KEYS)
    assert resolve(resolved).to_dict() == resolved.to_dict()


def test_pretraining_goes_on_with_the_encoder_in_place_of_the_defaults(tmp_path):
    source = make_run(tmp_path / "a", num_segments=2)
    resolved = resolve(start(default_config(), source))
    assert {key: resolved.model[key] for key in ("width", "depth", "vocab_size")} == {
        "width": 24, "depth": 3, "vocab_size": 20
    }  # fmt: skip
    assert (resolved.data.vocab, resolved.data.seq_len) == (str(source / "vocab.txt"), 64)
    with pytest.raises(ConfigError, match="num_segments is 2 there, 1 here"):
        resolve(start(mini.get_config(), source))
    with pytest.raises(ConfigError, match="model.arch is 'sibert_sandwich' there, 'bert' here"):
        resolve(start(mini.get_config("bert"), source))


def test_all_differences_are_told_at_once(source, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("\n".join([*SPECIAL, "w0"]) + "\n")
    changes = {"model__width": 64, "model__max_len": 128, "data__vocab": str(other)}
    config = start(glue.get_config("arch=bert"), source, **changes)
    with pytest.raises(ConfigError) as error:
        resolve(config)
    for words in (
        "model.arch is 'sibert_sandwich' there, 'bert' here",
        "model.max_len",
        "model.width",
    ):
        assert words in str(error.value)
    assert f"data.vocab={other} (6 tokens) is not the vocabulary there" in str(error.value)
    other.write_text((source / "vocab.txt").read_text())  # the same one elsewhere
    resolved = resolve(start(glue.get_config(), source, data__vocab=str(other)))
    assert resolved.data.vocab == str(other)


def test_a_bert_is_asked_for_by_name_as_it_has_another_optimizer(tmp_path):
    source = make_run(tmp_path / "a", arch="bert")
    with pytest.raises(ConfigError, match=r"model.arch is 'bert' there, and this config trains SI"):
        resolve(start(glue.get_config(), source))
    # Always there in BERT, whatever the key says.
    config = start(glue.get_config("arch=bert"), source, model__qkv_bias=True)
    assert resolve(config).model.arch == "bert"


@pytest.mark.parametrize(
    ("configs", "arch", "fitting"),
    [(gpt, "bert", "sigpt, sigpt_qk_norm, gpt"), (glue, "gpt", "sibert, .*bert")],
)
def test_an_encoder_of_the_other_direction_is_refused(tmp_path, configs, arch, fitting):
    source = make_run(tmp_path / "a", arch=arch)
    message = f"init_from={source} has model.arch='{arch}', .* name a checkpoint of {fitting}"
    with pytest.raises(ConfigError, match=message):
        resolve(start(configs.get_config(), source))


def export_into(directory, weights):
    (directory / "checkpoints/5").rmdir()
    (directory / "checkpoints").rmdir()
    (directory / weights).touch()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: d.rename(d.with_name("moved")), "there is no such directory"),
        (lambda d: (d / "checkpoints/5").rmdir(), "holds no checkpoint to start from"),
        (lambda d: export_into(d, "model.safetensors"), "interop import .*source NEW`"),
        (lambda d: export_into(d, "pytorch_model.bin"), "interop import .*source NEW`"),
        (lambda d: (d / "config.json").unlink(), "config.json is missing"),
        (lambda d: (d / "vocab.txt").unlink(), "has no vocab.txt"),
    ],
)
def test_a_source_that_is_no_run_is_named(source, spoil, message):
    spoil(source)
    with pytest.raises(ConfigError, match=f"checkpoint.init_from={source}.*{message}"):
        resolve(start(glue.get_config(), source))


def test_a_run_goes_on_with_what_is_recorded_when_its_source_is_gone(source, tmp_path):
    config = start(glue.get_config(), source)
    recorded = resolve(config, tmp_path / "run")
    make_run(tmp_path / "run", recorded)
    source.rename(tmp_path / "moved")
    resolved = resolve(config, tmp_path / "run")
    assert resolved.data.vocab == str(tmp_path / "run/vocab.txt")
    resolved.data.vocab = recorded.data.vocab
    assert resolved.to_dict() == recorded.to_dict()
    run_config(recorded)
