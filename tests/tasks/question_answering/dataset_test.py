"""Files of questions and of predictions, and settings: read and scored, or refused by name."""

import json
import lzma
import subprocess
import sys

import pytest

from sibert_jax.configs import squad1
from sibert_jax.data import DataError
from sibert_jax.errors import ConfigError
from sibert_jax.tasks.question_answering.__main__ import main
from sibert_jax.tasks.question_answering.dataset import read_dataset, read_new_questions
from sibert_jax.train.config import run_config
from sibert_jax.train.resolve import resolve

from .conftest import entry, squad, without

ADA, HALF = ("Ada", 0), "\ud83d"


def ada(*entries, context="Ada wrote it."):
    return squad((context, list(entries)))


ONE = ada(entry("q1", "Who?", ADA))


@pytest.mark.parametrize(
    ("content", "golds", "unanswerable"),
    [
        (without(ONE, "version", "title"), {"q1": ["Ada"]}, False),
        (ada(entry("q1", "", ADA, extra=[1], plausible_answers=[])), {"q1": ["Ada"]}, False),
        (ada(entry("q1", "", ADA, is_impossible=False)), {"q1": ["Ada"]}, False),
        (ada(entry(17, "", ADA), entry(-3, "", ADA)), {"17": ["Ada"], "-3": ["Ada"]}, False),
        (without(ONE, "answers"), {"q1": []}, True),
        (ada({"id": "q1", "question": "", "answers": None}), {"q1": []}, True),
        (ada(entry("q1", ""), entry("q2", "", ADA)), {"q1": [], "q2": ["Ada"]}, True),
        (without(ada(entry("q1", "", is_impossible=True)), "answers"), {"q1": []}, True),
        ({"data": [{"paragraphs": []}, *ONE["data"]]}, {"q1": ["Ada"]}, False),
        (squad(("", []), ("Ada wrote it.", [entry("q1", "", ADA)])), {"q1": ["Ada"]}, False),
        ("\ufeff" + json.dumps(ONE), {"q1": ["Ada"]}, False),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_variations_of_the_layout_are_read(write, content, golds, unanswerable, compressed):
    path = write("a.json", content)
    if compressed:
        packed = path.with_suffix(".json.xz")
        packed.write_bytes(lzma.compress(path.read_bytes()))
        path = packed
    dataset = read_dataset(path)
    assert dataset.gold_answers() == golds
    assert dataset.contexts[-1] == "Ada wrote it."
    assert dataset.unanswerable == unanswerable


def test_lone_surrogates_become_one_character_and_are_reported(write):
    content = ada(
        entry("q1", f"W{HALF}ho?", (f"{HALF}Ada", 1)), entry("q2", "\ud83d\ude00?"),
        context=f"a{HALF}Ada wr{HALF}ote {HALF}it.",
    )  # fmt: skip
    dataset = read_dataset(write("half.json", content))
    assert dataset.contexts == ("a\ufffdAda wr\ufffdote \ufffdit.",)
    first, second = dataset.questions
    assert (first.text, first.answers[0].text) == ("W\ufffdho?", "\ufffdAda")
    assert dataset.contexts[0][first.answers[0].start :].startswith(first.answers[0].text)
    assert second.text == "\U0001f600?"
    (line,) = dataset.report
    assert line.startswith("5 unpaired surrogates replaced by U+FFFD, the first in ")
    assert line.endswith("half.json: data[0].paragraphs[0]")
    assert read_dataset(write("whole.json", ONE)).report == ()


def test_new_questions_are_lines_or_a_squad_file(write):
    lines = read_new_questions(write("new.tsv", "Who?\tAda wrote it.\n\n What? \tIt was oil.\n"))
    assert [(q.id, q.text, lines.contexts[q.context]) for q in lines.questions] == [
        ("1", "Who?", "Ada wrote it."),
        ("2", "", ""),
        ("3", "What?", "It was oil."),
    ]
    twice = ada(entry("q1", "Who?", ADA), entry("q1", "What?", ADA))  # nothing is keyed by ids
    repeated = read_dataset(write("new.json", twice), unique_ids=False)
    assert [question.id for question in repeated.questions] == ["q1", "q1"]
    assert not read_new_questions(write("new.json", without(ONE, "answers"))).is_labeled


@pytest.mark.parametrize(
    ("data", "predictions", "exact", "note"),
    [
        (ada(entry("q1", "", ADA), entry("q2", "", ADA)), {"q1": "Ada"}, 50.0,
         "1 questions have no prediction and score 0\n"),
        (ada(entry("q1", "", ADA, is_impossible=False)), {}, 0.0, "1 questions have no prediction"),
        (ada(entry("q1", "", (f"A{HALF}", 0)), context=f"A{HALF}da"), {"q1": f"A{HALF}"}, 100.0,
         "2 unpaired surrogates replaced by U+FFFD"),
    ],
)  # fmt: skip
def test_what_was_missing_or_replaced_is_said(write, capsys, data, predictions, exact, note):
    files = [f"--data={write('a.json', data)}", f"--predictions={write('p.json', predictions)}"]
    assert main(files) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["exact"] == exact
    assert note in err


def test_probabilities_of_no_answer_count_and_no_jax_is_loaded(write):
    files = {
        "data": write("a.json", ada(entry("q1", "", ADA), entry("q2", ""))),
        "predictions": write("p.json", {"q1": "Ada", "q2": "Ada"}),
        "na_probs": write("na.json", {"q1": -3.5, "q2": 4.0}),
    }
    script = (
        "import sys; from sibert_jax.tasks.question_answering.__main__ import main; "
        "main(sys.argv[1:]); assert not {'jax', 'flax'} & set(sys.modules)"
    )
    command = [sys.executable, "-W", "error", "-c", script]
    command += [f"--{name}={path}" for name, path in files.items()]
    found = json.loads(subprocess.check_output(command))
    assert found["exact"] == 100.0  # q2 is above the threshold of 1
    assert (found["best_f1"], found["best_f1_thresh"]) == (100.0, -3.5)


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
