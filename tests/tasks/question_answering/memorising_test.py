"""32 questions of the real files are learnt by heart, from a fresh encoder."""

import json
import lzma
import pathlib

import jax
import pytest

from sibert_jax.train.config import default_config
from sibert_jax.train.run import train

SHARED = pathlib.Path(__file__).parents[4] / "shared/data"


def first_questions(path: pathlib.Path, count: int) -> dict:
    """The first questions of a SQuAD file, in the layout of the whole."""
    with lzma.open(path) as file:
        content = json.load(file)
    paragraphs = []
    for paragraph in content["data"][0]["paragraphs"]:
        entries = paragraph["qas"][:count]
        count -= len(entries)
        if entries:
            paragraphs.append({"context": paragraph["context"], "qas": entries})
    assert count == 0
    return {"version": content["version"], "data": [{"title": "", "paragraphs": paragraphs}]}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train-v1.1", "dev-v2.0"])
def test_32_real_questions_are_learnt_by_heart(tmp_path, name):
    if not (SHARED / "squad").exists():
        pytest.skip("../shared/data/squad is not there")
    questions = first_questions(SHARED / f"squad/{name}.json.xz", 32)
    path = tmp_path / "questions.json"
    path.write_text(json.dumps(questions))
    config = default_config("question_answering")
    config.task.unanswerable = "v2" in name
    config.task.max_query_len = 32
    config.data.path = config.data.valid_path = str(path)
    config.data.vocab = str(SHARED / "vocab/bert_base_uncased_vocab.txt")
    config.data.cache_dir = str(tmp_path / "cache")
    config.data.num_seq_lens = 1
    config.model.vocab_size, config.model.max_len = 30_522, 384
    config.model.width, config.model.ffn_width = 64, 128
    config.optim.learning_rate = 1e-2
    config.train.num_epochs = 300.0
    config.train.global_batch_size = 16
    config.train.log_every_steps = 100
    config.train.eval_every_steps = 0
    config.train.compilation_cache_dir = ""
    with jax.numpy_dtype_promotion("standard"):  # optax.lamb mixes integers and floats
        train(config, tmp_path / "run", jax.devices()[:1])
    (scores,) = json.loads((tmp_path / "run/results.json").read_text())["held_out"].values()
    assert scores["exact"] == 100.0, scores
