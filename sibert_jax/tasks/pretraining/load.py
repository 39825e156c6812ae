"""Turns text into pretraining examples."""

from collections.abc import Callable

from jax.sharding import PartitionSpec as P

from sibert_jax.data import (
    Corpora,
    Examples,
    PackedExamples,
    PairExamples,
    PretrainingBatches,
    TokenCorpus,
    load_corpora,
)
from sibert_jax.data.config import CorpusConfig
from sibert_jax.model import ModelConfig
from sibert_jax.tasks import invariant_head
from sibert_jax.tasks.corpus_data import corpus_data
from sibert_jax.tasks.pretraining.task import (
    Pretraining,
    PretrainingConfig,
    check_keys,
    invariant_parts,
    restore,
)
from sibert_jax.tasks.task import TaskData, TaskType


def load_pretraining(
    model: ModelConfig,
    task: PretrainingConfig,
    data: CorpusConfig,
    *,
    global_batch_size: int,
    seed: int,
    progress: Callable[[str], None],
) -> tuple[Pretraining, TaskData]:
    """Tokenizes the text, or memory-maps the tokens of an earlier call, and creates the task.

    Training batches are shuffled and their masks redrawn each epoch; the evaluation examples and
    their masks are the same for every seed.
    """
    corpora = load_corpora(data, vocab_size=model.vocab_size, progress=progress)
    seq_len = data.seq_len
    found = build_data(
        corpora, task, seq_len=seq_len, global_batch_size=global_batch_size, seed=seed
    )
    train = found.train
    padding = 1 - float(train.batch(0, slice(256))["attention_mask"].mean())
    progress(
        f"{train.num_examples:,} examples of {seq_len} tokens to train on, "
        + (f"about {padding:.1%} of them padding" if task.nsp else "packed without padding")
        + f"; {found.valid.num_examples:,} to evaluate on"
    )
    return Pretraining(model, task, (seq_len,), corpora.unigram_counts), found


def build_data(
    corpora: Corpora, task: PretrainingConfig, *, seq_len: int, global_batch_size: int, seed: int
) -> TaskData:
    """Returns the batches of masked text."""
    tokenizer = corpora.tokenizer

    def examples(corpus: TokenCorpus, seed: int) -> Examples:
        if task.nsp:
            return PairExamples(corpus, seq_len, tokenizer, seed=seed)
        return PackedExamples(corpus, seq_len, tokenizer)

    def batches(examples: Examples, seed: int, shuffle: bool) -> PretrainingBatches:
        return PretrainingBatches(
            examples,
            tokenizer,
            global_batch_size=global_batch_size,
            seed=seed,
            mask_rate=task.mask_rate,
            whole_word=task.whole_word,
            shuffle=shuffle,
        )

    return corpus_data(corpora, examples, batches, seed=seed, main_metric="mlm_loss")


TASK = TaskType(
    config=PretrainingConfig,
    data=CorpusConfig,
    seq_len=128,
    make=Pretraining,
    load=load_pretraining,
    restore=restore,
    sharding=(
        (r"head/output", P("tensor", "fsdp")),  # V, D
        (r"head/(transform|pooler)/kernel", P("fsdp", "tensor")),  # D, D
        (r"head/nsp/kernel", P("fsdp", None)),  # D, 2
        (r"head/transform_norm/.+|head/(transform|pooler|nsp)/bias", P(None)),  # D or 2
        (r"head/output_bias", P("tensor")),  # V
        *invariant_head.SHARDING,
    ),
    defaults={"model.arch": "sibert_sandwich", **invariant_head.STATELESS},
    check=check_keys,
    invariant_parts=invariant_parts,
)
