"""Every variant of the SQuAD configs is a run; what is stated of them."""

import itertools

import pytest

from sibert_jax.configs import squad1, squad2
from sibert_jax.errors import ConfigError
from sibert_jax.train.config import run_config
from sibert_jax.train.resolve import resolve
from sibert_jax.train.trainer import bare_task

VARIANTS = [
    f"size={size},arch={arch},optim={optim}"
    for size, arch, optim in itertools.product(*squad1.CHOICES.values())
    if (arch, optim) != ("bert", "recipe")
]


@pytest.mark.parametrize("variant", ["", *VARIANTS])
def test_every_variant_is_a_run(variant):
    for config in (squad1.get_config(variant), squad2.get_config(variant)):
        run = run_config(resolve(config))
        assert bare_task(run).seq_lens == (run.data.seq_len,)
        is_bert = "arch=bert" in variant
        assert run.model.arch == ("bert" if is_bert else "sibert")
        by_optim = {"paper": "adamw" if is_bert else "lamb", "recipe": "scale_invariant_sgd"}
        assert run.optim.name == by_optim["recipe" if "optim=recipe" in variant else "paper"]
        assert run.model.width == (128 if "mini" in variant else 768)


def test_squad_2_may_have_no_answer():
    assert not run_config(resolve(squad1.get_config())).task.unanswerable
    assert run_config(resolve(squad2.get_config())).task.unanswerable


@pytest.mark.parametrize("variant", ["tiny", "size=huge", "arch=bert,optim=recipe", "depth=2"])
def test_an_unknown_variant_names_what_there_is(variant):
    with pytest.raises(ValueError, match=r"configs/squad1.py: .*(size=base\|mini|not for bert)"):
        squad1.get_config(variant)


def test_a_key_of_another_task_is_refused():
    config = squad1.get_config()
    with config.unlocked():
        config.task.mask_rate = 0.15
    with pytest.raises(ConfigError, match="task.mask_rate is not a key"):
        run_config(resolve(config))
