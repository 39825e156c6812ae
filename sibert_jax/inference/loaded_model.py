"""A trained model and its uses. Notation: model/config.py, C outputs of a classifier."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sibert_jax.data import BucketedBatches, Sequences, Tokenizer, WordPiece, join_pair
from sibert_jax.errors import ConfigError
from sibert_jax.inference.answer import Answer, answer
from sibert_jax.inference.fill_mask import Guess, guess
from sibert_jax.inference.sizes import power_of_two, seq_lens
from sibert_jax.interop.exported import SavedTask
from sibert_jax.interop.packed import Packed
from sibert_jax.model import Encoder, ModelConfig
from sibert_jax.tasks.causal_lm.generation import generate
from sibert_jax.tasks.causal_lm.new_text import check_prompt, continuation
from sibert_jax.tasks.question_answering.task import QuestionAnswering

POOLINGS = ("mean", "first")

Text = str | tuple[str, str]


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedModel:
    """A trained model, from `sibert_jax.load`.

    Texts are truncated at `max_tokens` and padded to one of a few lengths, each compiled once. A
    text may be a pair, (first, second).

    Attributes:
      directory: the directory it was loaded from.
      module: encoder and head, a Flax module: `module.apply({"params": params}, batch)`.
      params: {"encoder": ...} and, if present, "head", float32, or `Packed` in a quantized model.
        The encoder alone: `sibert_jax.model.Encoder(config).apply({"params": params["encoder"]},
        ...)`.
      tokenizer: text to token ids.
      config: the encoder's config.
      kind: "pretraining", "classification", "question_answering", ...; "" without a head.
      task: the config section `task` of the run; None: unknown.
      max_tokens: the maximum length of a text, including special tokens.
      records: for a classifier, maps its outputs (N, C) to the result of `predict`.
      problem: a sentence on why the head's outputs cannot be used; "" if they can.
      labels: names of the head's outputs, in order; () if they have none.
      trained: the task of the run, as stored in exports; None if the weights are not from a run.
    """

    directory: pathlib.Path
    module: nn.Module
    params: dict
    tokenizer: Tokenizer
    config: ModelConfig
    kind: str
    task: Any
    max_tokens: int
    records: Callable[[np.ndarray], list[dict[str, Any]]] | None = None
    problem: str = ""
    labels: tuple[str, ...] = ()
    trained: SavedTask | None = None

    def encode(
        self, texts: Sequence[Text], pooling: str = "mean", batch_size: int = 32
    ) -> np.ndarray:
        """Embeds texts; returns (N, D) float32 vectors in the order of the texts.

        Args:
          texts: any number.
          pooling: "mean" over the features of all tokens, including [CLS] and [SEP], or those of
            the "first" token, [CLS].
          batch_size: texts per batch.

        Raises:
          ConfigError: `pooling` is unknown, or `texts` is a single string.
        """
        if pooling not in POOLINGS:
            raise ConfigError(f"pooling={pooling!r} is unknown; choose one of {list(POOLINGS)}.")
        run = self._encode_mean if pooling == "mean" else self._encode_first
        vectors_ND = np.zeros((len(texts), self.config.width), np.float32)
        for rows_B, output_BD in self._outputs(run, texts, batch_size):
            vectors_ND[rows_B] = output_BD
        return vectors_ND

    def predict(self, texts: Sequence[Text], batch_size: int = 32) -> list[dict[str, Any]]:
        """Classifies texts; returns one dict per text.

        Args:
          texts: any number; pairs if the run was trained on pairs.
          batch_size: texts per batch.

        Returns:
          {"prediction": the most likely label, "probability": its probability, "probabilities":
          {label: probability}}, or {"prediction": a number} for a regression.

        Raises:
          ConfigError: the model is not a classifier.
        """
        self._check_kind("predict", "classification")
        found: dict[int, dict[str, Any]] = {}
        for rows_B, output_BC in self._outputs(self._classify, texts, batch_size):
            found |= zip(rows_B.tolist(), self.records(output_BC))
        return [found[row] for row in range(len(texts))]

    def fill_mask(self, text: str, top_k: int = 5) -> list[Guess] | list[list[Guess]]:
        """Returns the most likely tokens for each "[MASK]" of a text, best first.

        Args:
          text: contains "[MASK]" at least once.
          top_k: number of tokens per mask.

        Returns:
          A list of `top_k` guesses; for several masks, a list of such lists.

        Raises:
          ConfigError: the model has no pretraining head, or there is no mask within `max_tokens`.
        """
        self._check_kind("fill_mask", "pretraining")
        if self.problem:
            raise ConfigError(self.problem)
        guesses = guess(
            text,
            top_k,
            tokenizer=self.tokenizer,
            max_tokens=self.max_tokens,
            read=self._read_masks,
        )
        return guesses[0] if len(guesses) == 1 else guesses

    def generate(
        self,
        prompt: str | Sequence[str],
        max_new_tokens: int = 64,
        *,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> str | list[str]:
        """Continues a text up to the end of a document or to `max_tokens` including the prompt.

        Args:
          prompt: one text, or several.
          max_new_tokens: maximum length of a continuation in tokens, ≥ 1.
          temperature: 0: greedy decoding; otherwise tokens are sampled at this temperature.
          top_k: sample from the k most likely tokens; 0: from all.
          top_p: sample from the smallest set of most likely tokens with this total probability.
          seed: random seed of the sampling.

        Returns:
          The continuation of each prompt, without the prompt; its first token may continue a word.

        Raises:
          ConfigError: the model is not a causal language model, or an argument is out of range.
          DataError: a prompt is empty, or has `max_tokens` or more tokens.

        Example::

            model = sibert_jax.load("runs/gpt")
            text = model.generate("the value of", 20, temperature=0.8, top_k=50)
        """
        self._check_kind("generate", "causal_lm")
        if self.problem:
            raise ConfigError(self.problem)
        task = dataclasses.replace(
            self.task,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
        )
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        tokens = self.tokenizer.encode_batch(prompts)
        for i, prompt_tokens in enumerate(tokens):
            check_prompt(f"prompt {i}", prompt_tokens, self.max_tokens)
        texts = [""] * len(prompts)
        for rows_B, batch in self._batches(tokens, [len(t) for t in tokens], batch_size=32):
            batch["example_index"] = np.resize(rows_B, len(batch["tokens"])).astype(np.int32)
            found = np.asarray(self._generate(task)(self.params, batch, seed))
            for i, tokens_T in zip(rows_B, found):
                texts[i] = continuation(self.tokenizer, tokens[i], tokens_T)
        return texts[0] if isinstance(prompt, str) else texts

    def answer(self, question: str, context: str) -> Answer:
        """Finds the answer to a question in a context of any length, which is read in windows.

        Raises:
          ConfigError: the model is not trained for question answering.
          DataError: question or context is empty.
        """
        self._check_kind("answer", "question_answering")
        return answer(
            question,
            context,
            tokenizer=self.tokenizer,
            task=self.task,
            max_tokens=self.max_tokens,
            read=lambda batch: self._read_windows(self.params, batch),
        )

    def __repr__(self) -> str:
        leaves = jax.tree.leaves(self.params, is_leaf=lambda leaf: isinstance(leaf, Packed))
        millions = sum(leaf.size for leaf in leaves) / 1e6
        kind = self.kind or "no head"
        return f"<{self.config.arch}, {millions:.1f} M parameters, {kind}, from {self.directory}>"

    def _check_kind(self, method: str, wanted: str) -> None:
        if self.kind != wanted:
            found = f"a model of {self.kind}" if self.kind else "a model without a head"
            raise ConfigError(
                f"{method}() needs a model of {wanted}, and {self.directory} holds {found}."
            )

    def _outputs(
        self, run: Callable, texts: Sequence[Text], batch_size: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields, per batch, the rows of its texts and the outputs of a compiled function."""
        if isinstance(texts, str):
            raise ConfigError(f"texts={texts[:30]!r} is a single text; give a list of texts.")
        if not texts:
            return
        joined = [self._joined(text) for text in texts]
        for rows_B, batch in self._batches(*zip(*joined), batch_size=batch_size):
            yield rows_B, np.asarray(run(self.params, batch))[: len(rows_B)]

    def _joined(self, text: Text) -> tuple[np.ndarray, int]:
        if not isinstance(self.tokenizer, WordPiece):
            raise ConfigError(
                f"{self.directory} has a byte-level BPE vocabulary without [CLS] and [SEP]; "
                "encode() needs a WordPiece vocabulary."
            )
        first, *second = self.tokenizer.encode_batch([text] if isinstance(text, str) else text)
        return join_pair(first, second[0] if second else None, self.tokenizer, self.max_tokens)

    def _batches(
        self, tokens: Sequence[np.ndarray], second_starts: Sequence[int], *, batch_size: int
    ) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Yields the rows of texts of similar length and their batch; the last batch is padded."""
        sequences = Sequences.of(tokens, second_starts, {}, self.tokenizer.pad_id)
        size = min(batch_size, power_of_two(len(tokens)))
        batches = BucketedBatches(
            sequences, seq_lens(self.max_tokens), global_batch_size=size, seed=0, shuffle=False
        )
        for step in range(len(batches)):
            batch = batches.batch(step)
            is_real_B = batch.pop("example_weights") > 0
            yield batch.pop("example_index")[is_real_B], batch

    # Each is compiled once per length and batch size.

    @functools.cached_property
    def _encode_mean(self) -> Callable:
        def run(params, batch):
            x_BLD, mask_BL1 = self._features(params, batch), batch["attention_mask"][..., None]
            sum_BD = jnp.sum(jnp.where(mask_BL1, x_BLD, 0.0), axis=1)
            return sum_BD / jnp.sum(mask_BL1, axis=1, dtype=jnp.float32)

        return jax.jit(run)

    @functools.cached_property
    def _encode_first(self) -> Callable:
        return jax.jit(lambda params, batch: self._features(params, batch)[:, 0])

    def _features(self, params: dict, batch: dict) -> jax.Array:
        arrays = (batch[name] for name in ("tokens", "segments", "attention_mask"))
        x_BLD, _ = Encoder(self.config).apply({"params": params["encoder"]}, *arrays)
        return x_BLD.astype(jnp.float32)

    @functools.cached_property
    def _classify(self) -> Callable:
        return jax.jit(lambda params, batch: self.module.apply({"params": params}, batch)[0])

    def _generate(self, task: Any) -> Callable:
        if task not in self._generators:
            run = functools.partial(
                generate,
                self.module,
                task,
                end_id=self.tokenizer.end_id,
                max_tokens=self.max_tokens,
            )
            self._generators[task] = jax.jit(run)
        return self._generators[task]

    @functools.cached_property
    def _generators(self) -> dict[Any, Callable]:
        return {}

    @functools.cached_property
    def _read_windows(self) -> Callable:
        task = QuestionAnswering(self.config, self.task, (self.max_tokens,))
        return jax.jit(task.eval_batch)

    def _read_masks(self, tokens_L: np.ndarray, positions_P: np.ndarray) -> np.ndarray:
        ((_, batch),) = self._batches([tokens_L], [len(tokens_L)], batch_size=1)
        batch["masked_positions"] = positions_P.astype(np.int32)[None]
        return np.asarray(self._mask_logits(self.params, batch), np.float64)[0]

    @functools.cached_property
    def _mask_logits(self) -> Callable:
        def run(params, batch):
            (projection, _), _ = self.module.apply({"params": params}, batch)
            return projection.logits()

        return jax.jit(run)
