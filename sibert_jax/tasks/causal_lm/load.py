"""Turns text into examples of a causal language model."""

from collections.abc import Callable

from sibert_jax.data import (
    Corpora,
    Examples,
    NextTokenBatches,
    NextTokenExamples,
    TokenCorpus,
    load_corpora,
)
from sibert_jax.data.config import CorpusConfig
from sibert_jax.model import ModelConfig
from sibert_jax.tasks import invariant_head
from sibert_jax.tasks.causal_lm.new_text import load_prompts
from sibert_jax.tasks.causal_lm.task import CausalLM, CausalLMConfig, invariant_parts, restore
from sibert_jax.tasks.corpus_data import corpus_data
from sibert_jax.tasks.task import TaskData, TaskType


def load_causal_lm(
    model: ModelConfig,
    task: CausalLMConfig,
    data: CorpusConfig,
    *,
    global_batch_size: int,
    seed: int,
    progress: Callable[[str], None],
) -> tuple[CausalLM, TaskData]:
    """Tokenizes the text, or memory-maps the tokens of an earlier call, and creates the task.

    Training batches are shuffled each epoch; the evaluation examples are the same for every seed.
    """
    corpora = load_corpora(data, vocab_size=model.vocab_size, progress=progress)
    tokenizer, seq_len = corpora.tokenizer, data.seq_len
    # The separator before a document is its first token: only it precedes the first word.
    start_id = tokenizer.end_id if task.boundaries == "segments" else None

    def examples(corpus: TokenCorpus, seed: int) -> NextTokenExamples:
        del seed
        return NextTokenExamples(corpus, seq_len, tokenizer)

    def batches(examples: Examples, seed: int, shuffle: bool) -> NextTokenBatches:
        return NextTokenBatches(
            examples,
            global_batch_size=global_batch_size,
            seed=seed,
            shuffle=shuffle,
            start_id=start_id,
        )

    found = corpus_data(corpora, examples, batches, seed=seed, main_metric="loss")
    progress(
        f"{found.train.num_examples:,} examples of {seq_len} tokens to train on; "
        f"{found.valid.num_examples:,} to evaluate on"
    )
    counts = corpora.unigram_counts.copy()
    counts[tokenizer.end_id] += sum(corpus.num_documents for corpus in corpora.train)
    return CausalLM(model, task, (seq_len,), counts, tokens_per_byte(corpora)), found


def tokens_per_byte(corpora: Corpora) -> float:
    """Returns tokens per byte of the held-out text, with a separator after each document."""
    held_out = corpora.valid
    return (held_out.num_tokens + held_out.num_documents) / held_out.num_bytes


TASK = TaskType(
    config=CausalLMConfig,
    data=CorpusConfig,
    seq_len=128,
    make=CausalLM,
    load=load_causal_lm,
    restore=restore,
    sharding=invariant_head.SHARDING,
    defaults={"model.arch": "sigpt", **invariant_head.STATELESS},
    invariant_parts=invariant_parts,
    load_new_text=load_prompts,
    is_causal=True,
)
