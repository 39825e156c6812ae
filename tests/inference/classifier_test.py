"""A fine-tuned run says in Python, and as an export, what it says on the command line."""

import pytest

import sibert_jax
from sibert_jax.interop.workdir_export import export_weights
from sibert_jax.tools.predict import predict
from tests.tasks.classification.conftest import make_config, vocab, write_pairs

__all__ = ["make_config", "vocab", "write_pairs"]


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "pooling"), [("sibert", "first"), ("bert", "pair")])
def test_python_and_the_command_line_say_the_same(
    make_config, write_pairs, train_one, tmp_path, arch, pooling
):
    config = make_config()
    config.model.arch, config.task.pooling = arch, pooling
    config.data.path, config.data.valid_path = write_pairs("train.tsv"), write_pairs("dev.tsv")
    train_one(config, tmp_path / "run")
    pairs = [("w1 w2", "w3"), ("w4", "w5 w6 w7"), ("w8", "w9")]
    (tmp_path / "new.tsv").write_text("".join("\t".join(pair) + "\n" for pair in pairs))
    header, *lines = predict(tmp_path / "run", str(tmp_path / "new.tsv"), print)
    assert header.startswith("prediction\tprobability\t")
    wanted = [line.split("\t")[:2] for line in lines]
    export_weights(tmp_path / "run", tmp_path / "out")
    for directory in ("run", "out"):
        found = sibert_jax.load(tmp_path / directory).predict(pairs)
        assert [record["prediction"] for record in found] == [label for label, _ in wanted]
        probabilities = [record["probability"] for record in found]
        assert probabilities == pytest.approx([float(p) for _, p in wanted], abs=1e-5)
