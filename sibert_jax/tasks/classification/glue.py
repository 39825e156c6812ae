"""The tasks of GLUE: what their files hold and how they are scored.

Wang et al. 2019, GLUE, https://arxiv.org/abs/1804.07461, table 1. The order of the labels is that
of TensorFlow Datasets, whose labels are numbers.
"""

import dataclasses

# Names that a column has in one distribution of the data or another, in any case.
LABEL_COLUMNS = ("label", "gold_label", "is_duplicate", "Quality", "score")
NO_LABEL = "-"  # in SNLI and MNLI as first published: the annotators did not agree
ID_COLUMNS = ("idx", "index", "id")
_SENTENCE = (("sentence",),)
_PAIR = (
    ("sentence1", "question1", "premise", "#1 String"),
    ("sentence2", "question2", "hypothesis", "#2 String"),
)


@dataclasses.dataclass(frozen=True)
class GlueTask:
    """One task.

    Args:
      name: as GLUE writes it.
      texts: the names that each text column may have; one column or two.
      labels: the classes as they stand in the files; () for a score in [0, 5].
      metrics: the official ones, the one that "best" goes by first.
      unnamed_columns: of official files whose first line is a row already; (): there are none.
    """

    name: str
    texts: tuple[tuple[str, ...], ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    unnamed_columns: tuple[str, ...] = ()


MAX_SCORE = 5.0
# The publication, the label, the author's own mark, the sentence.
_COLA_COLUMNS = ("source", "label", "mark", "sentence")
_ENTAILMENT = ("entailment", "not_entailment")
TASKS = {
    "cola": GlueTask("CoLA", _SENTENCE, ("0", "1"), ("matthews",), _COLA_COLUMNS),
    "sst2": GlueTask("SST-2", _SENTENCE, ("0", "1"), ("accuracy",)),
    "mrpc": GlueTask("MRPC", _PAIR, ("0", "1"), ("accuracy", "f1")),
    "qqp": GlueTask("QQP", _PAIR, ("0", "1"), ("accuracy", "f1")),
    "stsb": GlueTask("STS-B", _PAIR, (), ("pearson", "spearman")),
    "mnli": GlueTask("MNLI", _PAIR, ("entailment", "neutral", "contradiction"), ("accuracy",)),
    "qnli": GlueTask("QNLI", (("question",), ("sentence",)), _ENTAILMENT, ("accuracy",)),
    "rte": GlueTask("RTE", _PAIR, _ENTAILMENT, ("accuracy",)),
    "wnli": GlueTask("WNLI", _PAIR, ("0", "1"), ("accuracy",)),
}
