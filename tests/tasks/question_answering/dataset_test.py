"""SQuAD files that are read, and files of predictions that are scored."""

import json
import lzma
import subprocess
import sys

import pytest

from sibert_jax.tasks.question_answering.__main__ import main
from sibert_jax.tasks.question_answering.dataset import read_dataset, read_new_questions

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
