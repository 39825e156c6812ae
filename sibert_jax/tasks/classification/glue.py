"""The GLUE tasks as datasets: columns and labels of their files, and the official metrics.

Wang et al. 2019, GLUE, https://arxiv.org/abs/1804.07461, table 1. The labels are in the order of
TensorFlow Datasets, where they are numbers.
"""

from sibert_jax.tasks.classification.dataset import Dataset

# Column names in the various distributions of the data, case-insensitive.
_SENTENCE = (("sentence",),)
_PAIR = (
    ("sentence1", "question1", "premise", "#1 String"),
    ("sentence2", "question2", "hypothesis", "#2 String"),
)
_ENTAILMENT = ("entailment", "not_entailment")


def _task(name: str, texts, labels, metrics, **others) -> Dataset:
    return Dataset(
        name,
        texts,
        ("label", "gold_label", "is_duplicate", "Quality", "score"),
        labels,
        metrics,
        score_range=(0.0, 5.0),
        id_columns=("idx", "index", "id"),
        no_label="-",  # in the original SNLI and MNLI: the annotators disagreed
        is_official=True,
        **others,
    )


# CoLA: the publication, the label, the author's original mark, the sentence.
_COLA_COLUMNS = ("source", "label", "mark", "sentence")
TASKS = {
    "cola": _task("CoLA", _SENTENCE, ("0", "1"), ("matthews",), unnamed_columns=_COLA_COLUMNS),
    "sst2": _task("SST-2", _SENTENCE, ("0", "1"), ("accuracy",)),
    "mrpc": _task("MRPC", _PAIR, ("0", "1"), ("accuracy", "f1")),
    "qqp": _task("QQP", _PAIR, ("0", "1"), ("accuracy", "f1")),
    "stsb": _task("STS-B", _PAIR, (), ("pearson", "spearman")),
    "mnli": _task("MNLI", _PAIR, ("entailment", "neutral", "contradiction"), ("accuracy",)),
    "qnli": _task("QNLI", (("question",), ("sentence",)), _ENTAILMENT, ("accuracy",)),
    "rte": _task("RTE", _PAIR, _ENTAILMENT, ("accuracy",)),
    "wnli": _task("WNLI", _PAIR, ("0", "1"), ("accuracy",)),
}
