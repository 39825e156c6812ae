"""The small benchmarks measure what they say, on fakes and tiny sizes."""

import pytest

from benchmarks import command, first_step, generation, layers, memory, tokenizing
from sibert_jax.data import WordPiece
from sibert_jax.data.tokenizers.word_piece import SPECIAL_PIECES


def test_three_ways_differ_in_their_layers_only(tiny):
    config = tiny("sibert")
    runs = layers.variants(config)
    for run in runs.values():
        run.model.update(scan_layers=config.model.scan_layers, remat=config.model.remat)
        assert run.to_dict() == config.to_dict()
    kept, remat, unrolled = (run.model for run in layers.variants(config).values())
    assert (kept.scan_layers, kept.remat) == (True, False)
    assert (remat.scan_layers, remat.remat) == (True, True)
    assert (unrolled.scan_layers, unrolled.remat) == (False, False)


def test_both_tokenizers_are_measured():
    tokenizer = WordPiece([*SPECIAL_PIECES, "a", "##b", "."])
    result = tokenizing.measure_texts(tokenizer, ["ab a."] * 50, repeats=2)
    assert [row.name for row in result.rows] == [tokenizing.LIBRARY, tokenizing.OURS]
    assert all(row.least > 0 for row in result.rows)


@pytest.mark.slow
def test_continuations_are_measured_with_and_without_the_cache():
    result = generation.measure((6,), width=16, depth=1, num_anew=2, repeats=1)
    assert [row.name for row in result.rows] == [generation.CACHED, generation.ANEW]
    assert all(row.least > 0 for row in result.rows)


def test_cold_start_has_a_new_cache_and_a_warm_one_the_first():
    seen = []

    def run(overrides, config):
        cache = overrides["train.compilation_cache_dir"]
        seen.append(cache)
        return command.Run(2.0 if seen.count(cache) > 1 else 10.0, 0)

    rows = first_step.measure(repeats=3, run=run).rows
    assert [row.group for row in rows] == ["pretraining"] * 2 + ["fine-tuning"] * 2
    for cold, warm in (rows[:2], rows[2:]):
        assert (cold.least, cold.greatest, warm.greatest) == (10, 10, 2)
    assert len(seen) == 14


@pytest.mark.slow
def test_peak_is_compared_with_the_arrays(tiny):
    ran = []
    run = lambda overrides: ran.append(overrides) or command.Run(1.0, 500_000_000)  # noqa: E731
    arrays, planned, peak = memory.measure(tiny("sibert"), repeats=1, run=run).rows
    assert arrays.median < planned.median < peak.median == 500
    assert ran[0]["train.num_steps"] == 10


@pytest.mark.slow
def test_command_that_fails_is_an_error():
    with pytest.raises(RuntimeError, match="ended with 2: error: train.num_steps=0 and"):
        command.run(command.overrides(num_steps=0))
