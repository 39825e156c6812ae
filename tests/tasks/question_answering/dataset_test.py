"""Reading SQuAD files and predictions: what is right, and one sentence for what is wrong."""

import json
import lzma
import subprocess
import sys

import pytest

from sibert_jax.data import DataError
from sibert_jax.tasks.question_answering.__main__ import main
from sibert_jax.tasks.question_answering.dataset import read_dataset, read_new_questions


def entry(key="q1", question="Who?", answers=(("Ada", 0),), **more):
    golds = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": key, "question": question, "answers": golds, **more}


def squad(*entries, context="Ada wrote it."):
    return {
        "version": "1.1",
        "data": [{"title": "t", "paragraphs": [{"context": context, "qas": [*entries]}]}],
    }


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def test_both_versions_are_read_and_told_apart(write):
    one = read_dataset(write("one.json", squad(entry(), entry("q2"))))
    assert [question.id for question in one.questions] == ["q1", "q2"]
    assert one.contexts == ("Ada wrote it.",)
    assert one.gold_answers() == {"q1": ["Ada"], "q2": ["Ada"]}
    assert not one.unanswerable
    two = squad(entry(is_impossible=False), entry("q2", answers=(), is_impossible=True))
    assert read_dataset(write("two.json", two)).unanswerable
    habit = squad(entry(is_impossible=False), entry("q2", is_impossible=False))
    assert not read_dataset(write("habit.json", habit)).unanswerable


def without(content, *keys):
    """The content with these keys left out of every object."""
    if isinstance(content, list):
        return [without(part, *keys) for part in content]
    if not isinstance(content, dict):
        return content
    return {key: without(part, *keys) for key, part in content.items() if key not in keys}


@pytest.mark.parametrize(
    ("content", "golds"),
    [
        (without(squad(entry()), "version", "title"), {"q1": ["Ada"]}),
        (squad(entry(extra=[1], plausible_answers=[])), {"q1": ["Ada"]}),
        (squad(entry(key=17), entry(key=-3)), {"17": ["Ada"], "-3": ["Ada"]}),
        (without(squad(entry()), "answers"), {"q1": []}),
        (squad(entry() | {"answers": None}), {"q1": []}),
        (squad(entry(answers=()), entry("q2")), {"q1": [], "q2": ["Ada"]}),
        (without(squad(entry(is_impossible=True)), "answers"), {"q1": []}),
        ({"data": [{"paragraphs": []}, *squad(entry())["data"]]}, {"q1": ["Ada"]}),
        ({"data": [{"paragraphs": [{"context": "", "qas": []}]}, *squad(entry())["data"]]},
         {"q1": ["Ada"]}),
        ("\ufeff" + json.dumps(squad(entry())), {"q1": ["Ada"]}),
    ],
)  # fmt: skip
def test_what_other_tools_write_is_read(write, content, golds):
    assert read_dataset(write("tool.json", content)).gold_answers() == golds


def test_an_id_may_come_twice_where_no_predictions_are_listed_by_it(write):
    path = write("twice.json", squad(entry(), entry()))
    assert len(read_dataset(path, unique_ids=False).questions) == 2


HALF = "\ud83d"


def test_half_a_surrogate_pair_becomes_one_character_and_is_reported(write):
    content = squad(
        entry(question=f"W{HALF}ho?", answers=[(f"{HALF}Ada", 1)]), entry("q2", "\ud83d\ude00?"),
        context=f"a{HALF}Ada wr{HALF}ote {HALF}it.",
    )  # fmt: skip
    dataset = read_dataset(write("half.json", content))
    assert dataset.contexts == ("a\ufffdAda wr\ufffdote \ufffdit.",)
    first, second = dataset.questions
    assert (first.text, first.answers[0].text) == ("W\ufffdho?", "\ufffdAda")
    start, text = first.answers[0].start, first.answers[0].text
    assert dataset.contexts[0][start : start + len(text)] == text
    assert second.text == "\U0001f600?"
    (line,) = dataset.report
    assert line.startswith("5 unpaired surrogates replaced by U+FFFD, the first in ")
    assert line.endswith("half.json: data[0].paragraphs[0]")
    assert read_dataset(write("whole.json", squad(entry()))).report == ()


def test_compressed_files_are_read(tmp_path):
    path = tmp_path / "dev.json.xz"
    path.write_bytes(lzma.compress(json.dumps(squad(entry(question="¿Quién?"))).encode()))
    assert read_dataset(path).questions[0].text == "¿Quién?"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "bad.json is empty; JSON is wanted"),
        ('{"data": [', "bad.json is not JSON: .* at line 1, column 11"),
        ([], r"bad.json is \[\], not an object with 'data'"),
        (squad(entry(key=1.5)), "has 1.5 as 'id', a text is wanted"),
        (squad(entry(key=True)), "has true as 'id', a text is wanted"),
        (squad(entry() | {"answers": "Ada"}), "has \"Ada\" as 'answers', a list is wanted"),
        (squad(entry(key=1), entry(key="1")), "has the question id '1' twice"),
        ({"questions": []}, "bad.json has no 'data'; the layout of SQuAD is wanted"),
        ({"data": []}, "bad.json holds no question"),
        ({"data": [{}]}, r"bad.json: data\[0\] has no 'paragraphs'"),
        (squad({"question": "?"}), r"data\[0\].paragraphs\[0\].qas\[0\] has no 'id'"),
        (squad(entry(question=3)), "question 'q1' has 3 as 'question', a text is wanted"),
        (squad(entry(answers=(("Ada", "0"),))), "has \"0\" as 'answer_start', a whole number"),
        (squad(entry(), entry()), "bad.json has the question id 'q1' twice"),
        (squad(entry(is_impossible=True)), "question 'q1' has is_impossible=true and yet answers"),
        ('{"data": [], "data": []}', "bad.json has 'data' twice in one object"),
    ],
)
def test_bad_data_is_refused_with_file_and_question(write, content, complaint):
    with pytest.raises(DataError, match=complaint) as raised:
        read_dataset(write("bad.json", content))
    assert "\n" not in str(raised.value)


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "dev.json.xz"
    path.write_bytes(lzma.compress(json.dumps(squad(entry())).encode())[:-30])
    with pytest.raises(DataError, match=r"dev.json.xz is a truncated or damaged .xz file"):
        read_dataset(path)
    with pytest.raises(DataError, match=r"cannot read .*absent.json: No such file"):
        read_dataset(tmp_path / "absent.json")


TWO = squad(entry(is_impossible=False), entry("q2", answers=(), is_impossible=True))


@pytest.mark.parametrize(
    ("data", "predictions", "na_probs", "complaint"),
    [
        (TWO, {"q1": "Ada"}, None, "lacks 1 of the 2 question ids of dev.json, such as 'q2'"),
        (TWO, {"q1": "", "q2": "", "q7": ""}, None, "1 question ids that dev.json lacks.* 'q7'"),
        (TWO, {"q1": None, "q2": ""}, None, "question 'q1' has null, a text is wanted"),
        (TWO, '{"q1": "", "q2": "", "q1": "Ada"}', None, "has 'q1' twice in one object"),
        (TWO, ["Ada"], None, "not an object"),
        (TWO, {"q1": "", "q2": ""}, {"q1": 0.5}, "na.json lacks 1 of the 2.* 'q2'"),
        (TWO, {"q1": "", "q2": ""}, {"q1": 0.5, "q2": "x"}, "'q2' has \"x\", a number is wanted"),
        (TWO, {"q1": "", "q2": ""}, '{"q1": 0.5, "q2": NaN}', "'q2' has nan, a finite number"),
        (squad(entry()), {"q1": ""}, {"q1": 0.5}, "--na_probs is for SQuAD 2.0"),
        (squad(entry(is_impossible=False)), {"q1": ""}, {"q1": 0.5}, "--na_probs is for SQuAD 2.0"),
        (without(squad(entry()), "answers"), {"q1": ""}, None, "has no answers to score against"),
    ],
)
def test_bad_predictions_are_one_sentence_and_status_2(
    write, capsys, data, predictions, na_probs, complaint
):
    arguments = [
        f"--data={write('dev.json', data)}",
        f"--predictions={write('predictions.json', predictions)}",
    ]
    if na_probs is not None:
        arguments.append(f"--na_probs={write('na.json', na_probs)}")
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    with pytest.raises(DataError, match=complaint):
        raise DataError(err)


@pytest.mark.parametrize("habit", [False, True])
def test_in_squad_1_a_missing_prediction_is_said_and_scores_0(write, capsys, habit):
    more = {"is_impossible": False} if habit else {}
    data = write("dev.json", squad(entry(**more), entry("q2", **more)))
    assert main([f"--data={data}", f"--predictions={write('p.json', {'q1': 'Ada'})}"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"exact": 50.0, "f1": 50.0, "total": 2}
    assert err == "1 questions have no prediction and score 0\n"


def test_scoring_a_file_needs_no_jax(write):
    data = write("dev.json", TWO)
    predictions = write("p.json", {"q1": "Ada", "q2": "Ada"})
    na_probs = write("na.json", {"q1": -3.5, "q2": 4.0})
    script = (
        "import sys; from sibert_jax.tasks.question_answering.__main__ import main; "
        "status = main(sys.argv[1:]); assert not {'jax', 'flax'} & set(sys.modules); "
        "sys.exit(status)"
    )
    files = [f"--data={data}", f"--predictions={predictions}", f"--na_probs={na_probs}"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *files],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["exact"] == 100.0  # q2 is above the threshold of 1
    assert (found["best_f1"], found["best_f1_thresh"]) == (100.0, -3.5)


def test_new_questions_are_read_from_lines_or_from_squad_files(write):
    lines = read_new_questions(write("new.tsv", "Who?\tAda wrote it.\n\n What? \tIt was oil.\n"))
    assert [(q.id, q.text, lines.contexts[q.context]) for q in lines.questions] == [
        ("1", "Who?", "Ada wrote it."),
        ("3", "What?", "It was oil."),
    ]
    unlabelled = squad({"id": "q1", "question": "Who?"})
    assert read_new_questions(write("new.json", unlabelled)).gold_answers() == {"q1": []}
    assert not read_dataset(write("new.json", unlabelled)).is_labelled


def test_half_a_surrogate_pair_of_a_prediction_matches_that_of_the_answer(write, capsys):
    data = write("dev.json", squad(entry(answers=[(f"A{HALF}", 0)]), context=f"A{HALF}da"))
    predictions = write("p.json", {"q1": f"A{HALF}"})
    assert main([f"--data={data}", f"--predictions={predictions}"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["exact"] == 100.0
    assert "2 unpaired surrogates replaced by U+FFFD" in err


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("Who?\tAda.\nWho?\n", r"new.tsv, line 2: a question, one tab and its context .*\"Who\?\""),
        ("a\tb\tc\n", r"new.tsv, line 1: a question, one tab"),
        ("Who?\t \n", r"new.tsv, line 1: a question, one tab"),
        ("\n", "new.tsv holds no question"),
    ],
)
def test_lines_that_are_no_question_are_refused_by_number(write, content, complaint):
    with pytest.raises(DataError, match=complaint):
        read_new_questions(write("new.tsv", content))
