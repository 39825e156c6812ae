"""Finds the head in a Hugging Face directory and checks that it is complete."""

import pathlib
from collections.abc import Collection

from sibert_jax.errors import InteropError
from sibert_jax.interop.hugging_face_config import HEADS, TheirConfig, architecture_of
from sibert_jax.interop.names import head_table

# The modules that a head requires; the pooler and NSP may be missing.
NEEDED = {
    "": (),
    "pretraining": ("transform", "transform_norm", "output_bias"),
    "classification": ("classifier", "pooler"),
    "question_answering": ("span",),
    "token_classification": ("tagger",),
}


def head_of(params: dict) -> str:
    """Returns the kind of head in the parameters, as in `HuggingFaceModel.head`."""
    modules = params.get("head", {})
    return next((kind for kind, needed in NEEDED.items() if needed and needed[0] in modules), "")


def choose_head(tensors: Collection[str], theirs: TheirConfig) -> tuple[str, str]:
    """Returns the head to read, and a sentence if it differs from the one in the file."""
    marks = {
        "pretraining": "cls.predictions.transform.dense.weight",
        "classification": "classifier.weight",
        "question_answering": "qa_outputs.weight",
        "token_classification": "classifier.weight",
    }
    name = theirs.architecture
    if name is None:
        found = [head for head, mark in marks.items() if mark in tensors]
        if "classification" in found:
            return "", (
                "config.json names no architecture, so the classifier may be of sentences or of "
                'tokens and is not read; add "architectures": ["BertForSequenceClassification"] '
                'or ["BertForTokenClassification"]'
            )
        return (found[0] if found else ""), ""
    if name not in HEADS:
        return "", f"the head of {name} is not supported; only the encoder is read, as BertModel"
    head = HEADS[name]
    if head and marks[head] not in tensors:
        return "", f"config.json names {name}, but there is no {marks[head]}: read as BertModel"
    return head, ""


def check_head(
    flat: Collection[str], head: str, theirs: TheirConfig, directory: pathlib.Path
) -> None:
    """Raises InteropError if a part of the head is missing."""
    rows = [t for t in head_table(head, theirs.tied) if t.ours not in flat]
    there = {name.split("/")[1] for name in flat if name.startswith("head/")}
    needed = needed_modules(head, theirs.tied)
    for tensor in rows:
        module = tensor.ours.split("/")[1]
        if module in needed or module in there:
            raise InteropError(
                f"{directory} has no tensor {tensor.theirs}, which "
                f"{theirs.architecture or architecture_of(head, has_nsp=True)} needs."
            )


def needed_modules(head: str, tied: bool) -> tuple[str, ...]:
    """Returns the required modules of a head."""
    return NEEDED[head] if tied or head != "pretraining" else (*NEEDED[head], "output")
