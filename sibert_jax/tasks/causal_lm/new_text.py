"""Reads prompts from a file or a list, and the task that continues them."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from sibert_jax.data import BucketedBatches, Sequences, Tokenizer, seq_lens_for_one_pass
from sibert_jax.data.config import CorpusConfig
from sibert_jax.data.tables import one_file
from sibert_jax.data.text_files import read_lines
from sibert_jax.errors import ConfigError, DataError
from sibert_jax.model import ModelConfig
from sibert_jax.tasks.causal_lm.generation import generate, new_tokens
from sibert_jax.tasks.causal_lm.task import CausalLM, CausalLMConfig, restore
from sibert_jax.tasks.task import NewText


class Continuing(CausalLM):
    """A causal language model whose evaluation of a batch continues its prompts."""

    end_id: int
    max_tokens: int  # of a prompt and its continuation

    def own_shapes(self, num_rows: int, seq_len: int) -> dict:
        return {"example_index": ((num_rows,), jnp.int32)}

    def eval_batch(self, params, batch):
        """(B, T) int32: see `generate`."""
        keys = {"end_id": self.end_id, "max_tokens": self.max_tokens}
        return generate(self.model, self.task, params, batch, self.task.sampling_seed, **keys)

    def eval_metrics(self, results: list) -> dict[str, float]:
        return {}


def load_prompts(
    model: ModelConfig,
    task: CausalLMConfig,
    data: CorpusConfig,
    text: str | Sequence[str],
    tokenizer: Tokenizer,
    *,
    global_batch_size: int,
    progress: Callable[[str], None],
    workdir: pathlib.Path,
) -> tuple[CausalLM, NewText]:
    """Reads prompts, one per line, and their task; see `TaskType.load_new_text`.

    Raises:
      ConfigError: the run lacks the token counts that its head needs.
      DataError: a prompt is empty, or leaves no room for a new token within `data.seq_len`.
    """
    del progress
    if isinstance(text, str):
        path = one_file(text)
        prompts = list(read_lines(path))
        names = [f"{path}, line {i}" for i in range(1, len(prompts) + 1)]
    else:
        prompts, names = list(text), [f"prompt {i}" for i in range(len(text))]
    if not prompts:
        raise DataError(f"{text if isinstance(text, str) else 'the list'} holds no prompt")
    tokens = tokenizer.encode_batch(prompts)
    for name, prompt in zip(names, tokens):
        check_prompt(name, prompt, data.seq_len)
    sequences = Sequences.of(tokens, [len(prompt) for prompt in tokens], {}, tokenizer.pad_id)
    lengths = seq_lens_for_one_pass(sequences.lengths, global_batch_size)
    batches = BucketedBatches(
        sequences, lengths, global_batch_size=global_batch_size, seed=0, shuffle=False
    )
    continuing = restore(model, task, lengths, workdir, Continuing)
    if continuing.problem:
        raise ConfigError(continuing.problem)
    continuing.end_id, continuing.max_tokens = tokenizer.end_id, data.seq_len

    def records(results: list[Any]) -> list[dict[str, Any]]:
        found: dict[int, np.ndarray] = {}
        for step, rows_BT in enumerate(results):
            batch = batches.batch(step)
            is_real_B = batch["example_weights"] > 0
            found |= zip(batch["example_index"][is_real_B].tolist(), rows_BT[is_real_B])
        return [
            {
                "prediction": continuation(tokenizer, tokens[i], found[i]),
                "text": prompts[i],
            }
            for i in range(len(prompts))
        ]

    def lines(records: list[dict[str, Any]]) -> list[str]:
        return [" ".join(f"{r['text']}{r['prediction']}".splitlines()) for r in records]

    return continuing, NewText(batches, records, lines)


def check_prompt(name: str, prompt: np.ndarray, max_tokens: int) -> None:
    """Raises DataError for a prompt without tokens, or without room for one more.

    Args:
      name: name of the prompt in messages.
      prompt: its tokens.
      max_tokens: maximum length of a prompt with its continuation.

    Raises:
      DataError: the prompt cannot be continued.
    """
    if not len(prompt):
        raise DataError(f"{name} is an empty prompt; write at least one word to continue")
    if len(prompt) >= max_tokens:
        raise DataError(
            f"{name} has {len(prompt)} tokens, and the model reads {max_tokens} at most, with at "
            f"least one new one among them; shorten the prompt to {max_tokens - 1} tokens"
        )


def continuation(tokenizer: Tokenizer, prompt: np.ndarray, tokens_T: np.ndarray) -> str:
    """Returns the text that a row of `generate` adds to its prompt."""
    new = new_tokens(tokens_T, len(prompt), tokenizer.end_id)
    before = tokenizer.decode(prompt)
    return tokenizer.decode([*prompt, *new])[len(before) :]
