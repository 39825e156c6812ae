"""Files and settings that are refused, each with one sentence."""

import json
import lzma

import pytest

from sibert_jax.configs import squad1
from sibert_jax.data import DataError
from sibert_jax.errors import ConfigError
from sibert_jax.tasks.question_answering.__main__ import main
from sibert_jax.tasks.question_answering.dataset import read_dataset, read_new_questions
from sibert_jax.train.config import run_config
from sibert_jax.train.resolve import resolve

from .conftest import entry, squad, without

ADA = ("Ada", 0)


def ada(*entries):
    return squad(("Ada wrote it.", list(entries)))


ONE = ada(entry("q1", "Who?", ADA))
TWO = ada(entry("q1", "Who?", ADA), entry("q2", "Who?", is_impossible=True))
BOTH = {"q1": "", "q2": ""}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "bad.json is empty; expected JSON"),
        ('{"data": [', "bad.json is not JSON: .* at line 1, column 11"),
        ([], r"bad.json is \[\], not an object with 'data'"),
        ({"questions": []}, "bad.json has no 'data'; expected the layout of SQuAD"),
        ({"data": []}, "bad.json contains no questions"),
        ({"data": [{}]}, r"bad.json: data\[0\] has no 'paragraphs'"),
        ('{"data": [], "data": []}', "bad.json has 'data' twice in one object"),
        (ada({"question": "?"}), r"data\[0\].paragraphs\[0\].qas\[0\] has no 'id'"),
        (ada(entry(1.5, "", ADA)), "has 1.5 as 'id', expected a string"),
        (ada(entry("q1", 3, ADA)), "question 'q1' has 3 as 'question', expected a string"),
        (ada(entry("q1", "") | {"answers": "Ada"}), "has \"Ada\" as 'answers', expected a list"),
        (ada(entry("q1", "", ("Ada", "0"))), "has \"0\" as 'answer_start', expected an integer"),
        (ada(entry("q1", ""), entry("q1", "")), "bad.json has the question id 'q1' twice"),
        (ada(entry("q1", "", ADA, is_impossible=True)), "'q1' has is_impossible=true but also"),
    ],
)
def test_a_squad_file(write, content, message):
    with pytest.raises(DataError, match=message) as raised:
        read_dataset(write("bad.json", content))
    assert "\n" not in str(raised.value)


def test_a_truncated_or_absent_file(tmp_path):
    path = tmp_path / "dev.json.xz"
    path.write_bytes(lzma.compress(json.dumps(ONE).encode())[:-30])
    with pytest.raises(DataError, match=r"dev.json.xz is a truncated or damaged .xz file"):
        read_dataset(path)
    with pytest.raises(DataError, match=r"cannot read .*absent.json: No such file"):
        read_dataset(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Who?\tAda.\nWho?\n", r"new.tsv, line 2: expected a question, one tab .*\"Who\?\""),
        ("Who?\t \n", r"new.tsv, line 1: expected a question, one tab"),
        ("\n", "new.tsv contains no questions"),
    ],
)
def test_lines_of_new_questions(write, content, message):
    with pytest.raises(DataError, match=message):
        read_new_questions(write("new.tsv", content))


@pytest.mark.parametrize(
    ("data", "predictions", "na_probs", "message"),
    [
        (TWO, {"q1": "Ada"}, None, "lacks 1 of the 2 question ids of dev.json, such as 'q2'"),
        (TWO, BOTH | {"q7": ""}, None, "1 question ids that dev.json lacks.* 'q7'"),
        (TWO, BOTH | {"q1": None}, None, "question 'q1' has null, expected a string"),
        (TWO, '{"q1": "", "q2": "", "q1": "Ada"}', None, "has 'q1' twice in one object"),
        (TWO, ["Ada"], None, "not an object"),
        (TWO, BOTH, {"q1": 0.5}, "na.json lacks 1 of the 2.* 'q2'"),
        (TWO, BOTH, {"q1": 0.5, "q2": "x"}, "'q2' has \"x\", expected a number"),
        (TWO, BOTH, '{"q1": 0.5, "q2": NaN}', "'q2' has nan, expected a finite number"),
        (ONE, {"q1": ""}, {"q1": 0.5}, "--na_probs is for SQuAD 2.0"),
        (without(ONE, "answers"), {"q1": ""}, None, "has no answers to score against"),
    ],
)
def test_files_to_score(write, capsys, data, predictions, na_probs, message):
    arguments = [f"--data={write('dev.json', data)}"]
    arguments.append(f"--predictions={write('predictions.json', predictions)}")
    if na_probs is not None:
        arguments.append(f"--na_probs={write('na.json', na_probs)}")
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    with pytest.raises(DataError, match=message):
        raise DataError(err)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("task.doc_stride", 0, "task.doc_stride=0 must be at least 1"),
        ("task.n_best", 0, "task.n_best=0 must be at least 1"),
        ("task.null_threshold", float("nan"), "task.null_threshold=nan must be .*finite"),
        ("task.loss_scale", 0.0, "task.loss_scale=0.0 must be positive"),
        ("task.max_query_len", 400, "data.seq_len=384 leaves no room .* task.max_query_len=400"),
        ("task.mask_rate", 0.15, "task.mask_rate is not a key"),
        ("data.valid_path", "", "data.valid_path is empty; name a SQuAD file"),
        ("data.num_seq_lens", 0, "data.num_seq_lens=0 must be at least 1"),
    ],
)
def test_a_setting(key, value, message):
    config = squad1.get_config()
    section, name = key.split(".")
    with config.unlocked():
        config[section][name] = value
    with pytest.raises(ConfigError, match=message):
        run_config(resolve(config))


@pytest.mark.parametrize("variant", ["tiny", "size=huge", "arch=bert,optim=recipe", "depth=2"])
def test_a_variant(variant):
    with pytest.raises(ValueError, match=r"configs/squad1.py: .*(size=base\|mini|not for bert)"):
        squad1.get_config(variant)
