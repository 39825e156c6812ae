"""The tasks of GLUE: what their files hold and how they are scored.

Wang et al. 2019, GLUE, https://arxiv.org/abs/1804.07461, table 1. The order of the labels is that
of TensorFlow Datasets, whose labels are numbers.
"""

import dataclasses

# Names that a column has in one distribution of the data or another.
LABEL_COLUMNS = ("label", "gold_label", "is_duplicate", "Quality", "score")
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
    """

    name: str
    texts: tuple[tuple[str, ...], ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...]


MAX_SCORE = 5.0
_ENTAILMENT = ("entailment", "not_entailment")
TASKS = {
    "cola": GlueTask("CoLA", _SENTENCE, ("0", "1"), ("matthews",)),
    "sst2": GlueTask("SST-2", _SENTENCE, ("0", "1"), ("accuracy",)),
    "mrpc": GlueTask("MRPC", _PAIR, ("0", "1"), ("accuracy", "f1")),
    "qqp": GlueTask("QQP", _PAIR, ("0", "1"), ("accuracy", "f1")),
    "stsb": GlueTask("STS-B", _PAIR, (), ("pearson", "spearman")),
    "mnli": GlueTask("MNLI", _PAIR, ("entailment", "neutral", "contradiction"), ("accuracy",)),
    "qnli": GlueTask("QNLI", (("question",), ("sentence",)), _ENTAILMENT, ("accuracy",)),
    "rte": GlueTask("RTE", _PAIR, _ENTAILMENT, ("accuracy",)),
    "wnli": GlueTask("WNLI", _PAIR, ("0", "1"), ("accuracy",)),
}
