"""What to change when training goes wrong."""

from __future__ import annotations

from loraloom.plan.common_advice.item import (
    ALPHA,
    DROPOUT,
    RATE,
    TARGETS,
    TUNE,
    Subject,
    followed,
    overruled,
)

SUBJECT = Subject(
    "When a model overfits, underfits or diverges",
    (
        followed(
            "Overfitting: lower the rate or rank, raise dropout or decay.",
            "Goal retain does the first two; a search tries all four.",
            "goal retain",
            TUNE,
        ),
        followed(
            "Underfitting: raise rank or rate, or train longer.",
            "Goal quality raises rank and passes; a search the rate.",
            "goal quality",
            TUNE,
        ),
        followed(
            "Good results, but slow: a smaller rank, fewer modules.",
            "Goals fastest and memory.",
            "goal fastest",
            "goal memory",
        ),
        followed(
            "Poor results: a larger rank, more modules.",
            "Goal quality; all modules are there already.",
            "goal quality",
            TARGETS,
        ),
        followed(
            "Diverging: lower the rate.",
            "A diverging candidate is ended; the search goes on with lower rates.",
            RATE,
            TUNE,
        ),
        followed(
            "Diverging: a smaller alpha, or 2r.",
            "Large searches try smaller scales.",
            ALPHA,
            TUNE,
        ),
        overruled(
            "Diverging: add dropout.",
            "Dropout adds noise to the gradient; clipping and warm-up are there for this.",
            "derived here (what clipping does)",
            "rule training.max_grad_norm",
            "rule training.warmup_ratio",
        ),
        followed(
            "A smaller rate keeps more of what the base could do.",
            "Half of it with goal retain.",
            "goal retain",
        ),
        followed(
            "Small sets: mix sources or augment the data.",
            "`data.train` takes several sources, `data.augment` races changed rows.",
            "goal retain",
        ),
        followed(
            "Small sets: a smaller rank and rate, and more regularisation.",
            "Goal retain, and dropout by rows and passes.",
            "goal retain",
            DROPOUT,
        ),
    ),
)
