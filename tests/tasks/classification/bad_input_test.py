"""Files, settings and commands that are refused, each with one sentence."""

import pytest

from sibert_jax.configs import glue
from sibert_jax.data import ByteBPE, DataError
from sibert_jax.errors import ConfigError
from sibert_jax.tasks.classification.examples import read_examples
from sibert_jax.tasks.classification.glue import TASKS
from sibert_jax.tasks.classification.new_text import read_new_text
from sibert_jax.tools.predict import predict
from sibert_jax.train.config import default_config, run_config
from sibert_jax.train.resolve import resolve
from sibert_jax.train.run import load_task
from tests.builders import write_vocabulary

from .conftest import WORDS


@pytest.mark.parametrize(
    ("task", "lines", "message"),
    [
        ("sst2", [], "train.tsv is empty; its first line must name the columns"),
        ("sst2", ["sentence\tlabel"], "has no examples"),
        ("rte", ["sentence\tlabel", "a\t1"], "no 'sentence1', which RTE needs"),
        ("sst2", ["sentence\tlabel", "a\t1", "a\tgood"],
         "line 3: unknown label 'good'; the labels of SST-2 are 0, 1"),
        ("mnli", ["sentence1\tsentence2\tlabel", "a\tb\t-"], "line 2: unknown label '-'"),
        ("sst2", ["sentence\tlabel", "a\tb\t1"], "line 2 has 3 tab.* expected 2: sentence"),
        ("cola", ["gj04\tyes\t\tBirds sing."], r"columns \['gj04', .* its first line must name"),
        ("sst2", ["idx\tsentence\tlabel", "4\ta\t1", "5\tb\t1", "4\tc\t0"],
         "line 4: duplicate id '4', first seen in .*train.tsv, line 2"),
        ("stsb", ["sentence1\tsentence2\tscore", "a\tb\thigh"], "the score 'high' is not a number"),
        ("stsb", ["sentence1\tsentence2\tscore", "a\tb\t5.5"], "'5.5' is not a number from"),
        ("stsb", ["sentence1\tsentence2\tscore", "a\tb\tnan"], "line 2: the score 'nan'"),
    ],
)  # fmt: skip
def test_a_file(write, task, lines, message):
    with pytest.raises(DataError, match=message):
        read_examples("files", write(*lines), TASKS[task])


def test_a_missing_file_an_ambiguous_glob_and_new_text(write):
    path = write("sentence\tlabel", "a\t1", name="train.tsv")
    write("sentence\tlabel", "a\t1", name="train.tsv2")
    with pytest.raises(DataError, match="matches 2 files"):
        read_examples("files", f"{path}*", TASKS["sst2"])
    with pytest.raises(DataError, match=r"no such file: 'nowhere.tsv'"):
        read_examples("files", "nowhere.tsv", TASKS["sst2"])
    with pytest.raises(DataError, match=r"new.txt, line 1 has 1 tab.* expected 2: text 1, text"):
        read_new_text(write("It rains.", name="new.txt"), TASKS["rte"])
    with pytest.raises(DataError, match="new.txt is empty; expected one example per line"):
        read_new_text(write(name="new.txt"), TASKS["rte"])


@pytest.mark.parametrize(
    ("path", "task", "message"),
    [
        ("{}", "mnli", "names no split; write .*:train or another split"),
        ("{}:validation", "mnli", r"has no split 'validation'"),
        ("{}:train", "sst2", r"has the features .* but none of \['sentence'\]"),
        ("{}:train", "rte", r"example 0: unknown label '2'; the labels of RTE are entailment"),
        ("nowhere:train", "mnli", "no prepared dataset in nowhere"),
    ],
)
def test_a_tensorflow_dataset(prepared_mnli, path, task, message):
    with pytest.raises(DataError, match=message):
        read_examples("tfds", path.format(prepared_mnli), TASKS[task])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("task.dataset", "sst-2", "task.dataset='sst-2' is unknown; choose one of .*'sst2'"),
        ("task.name", "classify", "task.name='classify' is unknown"),
        ("train.num_epochs", -1.0, "train.num_epochs=-1.0 must be at least 0"),
        ("optim.warmup_fraction", 1.0, "optim.warmup_fraction=1.0 must be .*below 1"),
        ("optim.head.warmup_fraction", -0.1, "optim.head.warmup_fraction=-0.1 must be"),
        ("optim.eta_lambda", 1e-3, "optim.eta_lambda=0.001 sets both"),
        ("data.source", "text", "data.source='text' is unknown; choose one"),
        ("data.path", "", "data.path is empty"),
        ("data.num_seq_lens", 0, "data.num_seq_lens=0 must be at least 1"),
        ("data.seq_len", 64, "data.seq_len=64 must lie between 8 and model.max_len=32"),
    ],
)
def test_a_setting(config, key, value, message):
    config.update_from_flattened_dict({key: value})
    with pytest.raises(ConfigError, match=message):
        run_config(resolve(config))


def test_settings_that_do_not_go_together(config):
    config.train.num_steps = 10
    with pytest.raises(ConfigError, match="train.num_steps=10 and train.num_epochs=1.0: one"):
        run_config(resolve(config))
    config.train.num_steps, config.optim.name = 0, "scale_invariant_sgd"
    config.optim.learning_rate = config.optim.weight_decay = config.optim.max_grad_norm = 0.0
    config.optim.eta_lambda = 1e-3
    with pytest.raises(ConfigError, match="head of this classification task is not scale inv"):
        run_config(resolve(config))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"vocab": ""}, "both empty, so there is no vocabulary"),
        (
            {"vocab": "{bytes/vocab.json}"},
            r"is a byte-level BPE vocabulary without \[CLS\] and \[SEP\]",
        ),
        ({"vocab": "{shorter}"}, "has 47 .* but model.vocab_size=48; leave model"),
        ({"path": "absent/*.tsv"}, r"^data\.path: no file matches the glob 'absent/\*"),
        ({"valid_path": "absent/*.tsv"}, r"^data\.valid_path: no file matches"),
        ({"test_path": "absent/*.tsv"}, r"^data\.test_path: no file matches"),
        ({"valid_path": "{unlabeled.tsv}"}, r"data.valid_path: .*unlabeled.tsv has no labels"),
        ({"test_path": "{train}"}, "two sets '.*_train', whose predictions would go to one"),
        ({"valid_path": "", "valid_fraction": 1e-4}, "=0.0001 holds out 0 of 32 examples"),
    ],
)
def test_files_of_a_run(config, write_pairs, tmp_path, data, message):
    names = {
        f"{{{name}}}": str(tmp_path / name)
        for name in ("unlabeled.tsv", "shorter", "bytes/vocab.json")
    }
    (tmp_path / "unlabeled.tsv").write_text("sentence1\tsentence2\na\tb\n")
    write_vocabulary(tmp_path / "shorter", WORDS[1:])
    (tmp_path / "bytes").mkdir()
    ByteBPE.of_merges([], 257).save(tmp_path / "bytes/vocab.json")
    config.data.path = config.data.valid_path = names["{train}"] = write_pairs("train.tsv")
    config.data.update({key: names.get(value, value) for key, value in data.items()})
    with pytest.raises((ConfigError, DataError), match=message):
        load_task(run_config(resolve(config)), progress=print)


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("task=sst-2", r"task=sst-2 is unknown; choose one of .*'sst2'"),
        ("sst2", "'sst2' is unknown; there are"),
        ("optim=sgd", "optim=sgd is unknown; choose one of"),
        ("arch=bert,optim=recipe", "optim=recipe is for arch=sibert"),
    ],
)
def test_a_variant(variant, message):
    with pytest.raises(ValueError, match=message):
        glue.get_config(variant)


def test_a_run_that_does_not_predict(tmp_path):
    with pytest.raises(ConfigError, match="config.json is missing, .* Name the workdir of a fine"):
        predict(tmp_path, "new.txt", print)
    (tmp_path / "config.json").write_text(resolve(default_config()).to_json())
    with pytest.raises(ConfigError, match="--predict is for runs that answer or continue a text"):
        predict(tmp_path, "new.txt", print)
