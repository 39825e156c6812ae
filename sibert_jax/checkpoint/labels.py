"""The labels of a classifier in one run and in another that starts from it."""

import dataclasses

CLASSIFIER = "head/classifier"  # the last axis of its leaves is that of the labels


@dataclasses.dataclass(frozen=True)
class Labels:
    """Which of the outputs there is which of the outputs here.

    Attributes:
      theirs: labels of the source, in the order of its outputs; () if it does not say.
      ours: likewise of this run.
    """

    theirs: tuple[str, ...]
    ours: tuple[str, ...]

    @classmethod
    def of(cls, their_run: dict, our_run: dict) -> "Labels":
        """From what two checkpoints say of their runs."""
        return cls(*(tuple(run.get("labels", ())) for run in (their_run, our_run)))

    @property
    def order(self) -> list[int] | None:
        """The place there of each label here; None if the labels are others.

        [] leaves the outputs as they are: one run does not name them, or there is a single one.
        "LABEL_1" is the name that transformers gives to the label 1, and case does not count.

        Example:
          >>> Labels(("NEUTRAL", "ENTAILMENT"), ("entailment", "neutral")).order
          [1, 0]
        """
        if not self.theirs or not self.ours or len(self.theirs) == len(self.ours) == 1:
            return []
        theirs, ours = ([_plain(name) for name in names] for names in (self.theirs, self.ours))
        if len(set(theirs)) < len(theirs) or sorted(theirs) != sorted(ours):
            return None
        return [theirs.index(name) for name in ours]

    def note(self) -> str:
        """What is done about a difference, "" if there is none."""
        names = f"{', '.join(self.theirs)} there, {', '.join(self.ours)} here"
        if self.order is None:
            return f"{CLASSIFIER} is not taken, as its labels are {names}"
        if self.order not in ([], list(range(len(self.ours)))):
            return f"{CLASSIFIER} is put in order: {names}"
        return ""


def _plain(name: str) -> str:
    return name.casefold().removeprefix("label_")
