"""How much dropout, and when."""

from __future__ import annotations

from loraloom.plan.common_advice.item import DROPOUT, TUNE, Subject, followed, overruled

SUBJECT = Subject(
    "Dropout",
    (
        followed(
            "Dropout of 0 by default: fast, with little effect.",
            "0 for large data and with goal fastest.",
            DROPOUT,
            "goal fastest",
        ),
        overruled(
            "Dropout of 0.05 to 0.1 as a rule.",
            "Against memorising only: 0 for large data seen once.",
            "derived here (rule by rows and passes)",
            DROPOUT,
        ),
        overruled(
            "Dropout of 0.1 in most cases.",
            "By rows and passes: 0.1, 0.05 or 0.",
            "derived here (rule by rows and passes)",
            DROPOUT,
        ),
        overruled(
            "Dropout of 0.1 to 0.2.",
            "0.1 at most, and 0 for large data.",
            "derived here (rule by rows and passes)",
            DROPOUT,
        ),
        followed(
            "QLoRA took 0.1 up to 13B and about 0.05 above.",
            "0 to 0.1, and a search tries all three.",
            DROPOUT,
        ),
        followed(
            "A little dropout (0.05) on small sets.",
            "0.05 under 10,000 rows seen twice, 0.1 under 1,000.",
            DROPOUT,
        ),
        overruled(
            "Dropout of 0.3 for large sets, none for small ones.",
            "The other way round: large data need less.",
            "derived here (rule by rows and passes)",
            DROPOUT,
        ),
        followed(
            "More dropout regularises more and trains slower.",
            "Only where rows are few and seen often.",
            DROPOUT,
        ),
        followed(
            "More dropout where overfitting shows.",
            "A search tries 0, 0.05 and 0.1.",
            DROPOUT,
            TUNE,
        ),
    ),
    differs="none at all, 0.05 to 0.1, or 0.3 for large sets.",
)
