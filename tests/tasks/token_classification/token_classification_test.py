"""Tagged sentences, from files to predictions; entities as seqeval counts them."""

import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sibert_jax.config_file import load_config
from sibert_jax.data import DataError, WordPiece
from sibert_jax.data.tokenizers.word_piece import SPECIAL_PIECES
from sibert_jax.errors import ConfigError
from sibert_jax.tasks.token_classification.entities import entities, entity_scores
from sibert_jax.tasks.token_classification.rows import TaggedRows
from sibert_jax.tasks.token_classification.sentences import read_new_sentences, read_sentences
from sibert_jax.tools.predict import predict
from sibert_jax.train.config import run_config
from sibert_jax.train.resolve import resolve
from sibert_jax.train.run import load_task
from tests.builders import random_params, write_vocabulary

WORDS = [f"w{i}" for i in range(43)]
TAGS = ("O", "B-LOC", "B-PER", "I-PER")


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("O O", []),
        ("B-PER I-PER O B-LOC", [("PER", 0, 1), ("LOC", 3, 3)]),  # IOB2
        ("I-PER I-PER B-PER I-LOC", [("PER", 0, 1), ("PER", 2, 2), ("LOC", 3, 3)]),  # IOB1
        ("S-LOC B-PER I-PER E-PER E-PER", [("LOC", 0, 0), ("PER", 1, 3), ("PER", 4, 4)]),  # IOBES
        ("B-PER I-LOC", [("PER", 0, 0), ("LOC", 1, 1)]),
        ("B I O", [("_", 0, 1)]),
        ("B-A-B I-A-B", [("A-B", 0, 1)]),
    ],
)
def test_entities_of_every_scheme_are_found(tags, found):
    assert entities(tags.split()) == set(found)


def test_an_entity_is_right_if_its_type_and_its_words_are():
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "O"]]
    predicted = [["B-PER", "O", "O", "B-LOC"], ["B-PER", "O"]]
    scores, by_type = entity_scores(predicted, gold)
    assert scores == {"f1": 1 / 3, "precision": 1 / 3, "recall": 1 / 3}
    assert by_type["LOC"] == {"f1": 2 / 3, "precision": 1.0, "recall": 0.5, "examples": 2}
    assert entity_scores([["O"]], [["O"]])[0] == {"f1": 0.0, "precision": 0.0, "recall": 0.0}


SENTENCES = st.lists(
    st.lists(st.tuples(*[st.sampled_from(["O", *(f"{p}-{t}" for p in "BIES" for t in "AB")])] * 2),
             min_size=1, max_size=9), min_size=1, max_size=5,
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=300)
@given(SENTENCES)
def test_scores_are_those_of_seqeval(sentences):
    seqeval = pytest.importorskip("seqeval.metrics")
    gold, predicted = ([[pair[i] for pair in row] for row in sentences] for i in (0, 1))
    scores, by_type = entity_scores(predicted, gold)
    for name, score in scores.items():
        theirs = getattr(seqeval, f"{name}_score")(gold, predicted, zero_division=0)
        assert score == pytest.approx(theirs)
    if not by_type:
        return
    report = seqeval.classification_report(gold, predicted, output_dict=True, zero_division=0)
    for kind, figures in by_type.items():
        ours = (figures["precision"], figures["recall"], figures["f1"], figures["examples"])
        names = ("precision", "recall", "f1-score", "support")
        assert ours == pytest.approx([report[kind][name] for name in names])


CONLL = "-DOCSTART- -X- O\n\nw1 x B-PER\nw2 x I-PER\n\nw3 x O\nw4 y B-LOC\n"
COMMENTS = (
    "# sent_id = 1\n# w w\nw1\tx\tB-PER\nw2\tx\tI-PER\n\n# a comment\nw3\tx\tO\nw4\ty\tB-LOC\n"
)
JSON = '{"tokens": ["w1", "w2"], "tags": ["B-PER", "I-PER"]}\n' + (
    '{"tokens": ["w3", "w4"], "tags": ["O", "B-LOC"]}\n'
)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.conll", CONLL),
        ("a.tsv", CONLL.replace(" ", "\t")),
        ("a.conllu", COMMENTS),
        ("a.jsonl", JSON),
    ],
)
def test_columns_and_json_lines_read_as_the_same_sentences(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    read = read_sentences(str(tmp_path / name))
    assert read.words == [["w1", "w2"], ["w3", "w4"]]
    assert read.tags == [["B-PER", "I-PER"], ["O", "B-LOC"]]
    assert read_new_sentences(str(tmp_path / name)).words == read.words


def test_a_blank_line_of_plain_text_is_a_sentence_without_words(tmp_path):
    (tmp_path / "new.txt").write_text("w1 w2\n\nw3\n")
    assert read_new_sentences(str(tmp_path / "new.txt")).words == [["w1", "w2"], [], ["w3"]]


def test_the_first_token_of_a_word_has_its_tag_and_long_sentences_have_several_rows():
    tokenizer = WordPiece([*SPECIAL_PIECES, "un", "##do", "it", "##s"])
    words = [["undo", "its", "it", "\u200b"], [], ["undo" + "s" * 9]]
    rows = TaggedRows(words, [[1, 2, 3, 4], [], [5]], tokenizer, seq_len=6)
    assert rows.sentences.tolist() == [0, 0, 1, 2]
    assert rows.num_cut == 1
    batch = rows.rows(np.arange(4), 6)
    pieces = [[tokenizer.pieces[i] for i in row[1:5]] for row in batch["tokens"]]
    assert pieces[0] == ["un", "##do", "it", "##s"]
    assert pieces[1][:2] == ["it", "[UNK]"]  # a word that the vocabulary drops has a token, too
    assert batch["tags"].tolist() == [
        [-1, 1, -1, 2, -1, -1],
        [-1, 3, 4, -1, -1, -1],
        [-1, -1, -1, -1, -1, -1],
        [-1, 5, -1, -1, -1, -1],
    ]


@pytest.fixture
def configure(tmp_path):
    write_vocabulary(tmp_path / "vocab.txt", WORDS)

    def make(path, **keys):
        small = {"model.max_len": 8, "model.width": 16, "model.ffn_width": 32, "model.depth": 1}
        small |= {"model.vocab_size": 48, "model.scan_layers": False, "train.global_batch_size": 8}
        small |= {"train.compilation_cache_dir": "", "train.eval_every_steps": 0}
        small |= {"data.vocab": tmp_path / "vocab.txt", "data.path": path} | keys
        words = [f"--config.{k}={v}" for k, v in small.items()]
        return load_config("token_classification", words)

    return make


def write_entities(path, count: int) -> str:
    """A person has a word of w0 to w9 and one of w30 to w39, a place one of w10 to w19."""
    rng, lines = np.random.default_rng(0), []
    for _ in range(count):
        for kind in rng.choice(3, 5):
            tens = (0, 30) if kind == 0 else (10 * kind,)
            words = [WORDS[ten + rng.integers(10)] for ten in tens]
            tags = [("B-PER", "I-PER"), ("B-LOC",), ("O",)][kind]
            lines += [f"{word} {tag}" for word, tag in zip(words, tags)]
        lines.append("")
    path.write_text("\n".join(lines))
    return str(path)


def test_predictions_are_of_whole_sentences_and_have_the_scores(configure, tmp_path):
    run = run_config(resolve(configure(write_entities(tmp_path / "train.conll", 40))))
    assert run.task.labels == TAGS
    said = []
    task, data = load_task(run, said.append)
    assert "sentences are longer than 8 tokens and are split between words" in " ".join(said)
    batches = [data.valid.batch(step, slice(None)) for step in range(len(data.valid))]
    params, evaluate = random_params(task.init, batches[0], std=0.5), jax.jit(task.eval_batch)
    results = [jax.device_get(evaluate(params, batch)) for batch in batches]
    (held_out,) = data.held_out
    scores = held_out.finish(results, tmp_path)
    lines = (tmp_path / f"{held_out.name}.conll").read_text().split("\n\n")
    rows = [[line.split("\t") for line in part.splitlines()] for part in lines if part]
    assert min(len(sentence) for sentence in rows) >= 5
    gold, predicted = ([[word[i] for word in row] for row in rows] for i in (1, 2))
    wanted, by_type = entity_scores(predicted, gold)
    assert (wanted.items() <= scores.items(), scores["classes"]) == (True, by_type)
    metrics = task.eval_metrics(results)
    assert {name: metrics[name] for name in wanted} == wanted


@pytest.mark.slow
def test_one_command_from_a_file_to_predictions(configure, train_one, tmp_path):
    config = configure(write_entities(tmp_path / "train.conll", 400), **{"train.num_epochs": 8.0})
    train_one(config, tmp_path / "run")
    results = json.loads((tmp_path / "run/results.json").read_text())
    (scores,) = results["held_out"].values()
    assert scores["f1"] > 0.9, scores
    (tmp_path / "new.txt").write_text("w11 w25\n\nw1 w32\n")
    lines = predict(tmp_path / "run", str(tmp_path / "new.txt"), print, jax.devices()[:1])
    assert lines == ["w11\tB-LOC", "w25\tO", "", "", "w1\tB-PER", "w32\tI-PER", ""]
    (tmp_path / "new.jsonl").write_text('{"tokens": ["w11"]}\n')
    (line,) = predict(tmp_path / "run", str(tmp_path / "new.jsonl"), print, jax.devices()[:1])
    assert json.loads(line)["prediction"] == ["B-LOC"]


@pytest.mark.parametrize(
    ("name", "content", "keys", "message"),
    [
        ("t.conll", "", {}, "t.conll is empty; expected sentences"),
        ("t.conll", "w1\nw2\n", {}, "t.conll, line 1 has one column; expected a word and its tag"),
        ("t.conll", "w1 O\nw2 O\n", {}, "line 1: all words have the tag 'O'; at least two tags"),
        ("t.conll", "w1 O\nw2 B-A\n", {"data.tag": 5}, "line 1 has 2 columns but no 5; change da"),
        ("t.conll", "w1 O\nw2 B-A\n", {"data.tag": "ner"}, "data.tag='ner' must be a column"),
        ("t.conll", "w1 O\n\nw2 B-A x\n", {"task.strict": True}, "line 3 has 3 columns, expected"),
        ("t.jsonl", '{"words": ["w1"], "tags": ["O"]}', {}, "no 'tokens'; name the lists in data"),
        ("t.jsonl", '{"tokens": ["w1"], "tags": ["O", "B-A"]}', {}, "has 1 words and 2 tags"),
        ("t.jsonl", '{"tokens": "w1", "tags": ["O"]}', {}, "'tokens' and 'tags' must be lists"),
        ("t.conll", "w1 O\nw2 B-A\n", {"data.valid_path": "v.conll"},
         "line 3: unknown tag 'B-B' in the sentence; the tags of t.conll are O, B-A; did you mean"),
        ("t.conll", "".join(f"w1 {i}\n" for i in range(501)), {},
         "line 1: the words have 501 different tags, such as '0'; name the column of the tags"),
        ("t.conll", "w1 O\nw2 B-A\n", {}, "data.valid_fraction=0.1 holds out 0 of 1 sentences"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named(configure, tmp_path, name, content, keys, message):
    (tmp_path / name).write_text(content)
    (tmp_path / "v.conll").write_text("w1 O\n\nw2 B-B\n")
    if "data.valid_path" in keys:
        keys = keys | {"data.valid_path": tmp_path / "v.conll"}
    with pytest.raises((ConfigError, DataError), match=message) as error:
        load_task(run_config(resolve(configure(tmp_path / name, **keys))), print)
    assert "\n" not in str(error.value)
