"""How often rows are seen, how many make a step, and what else a step is made of."""

from __future__ import annotations

from loraloom.plan.common_advice.item import (
    BATCH,
    DECAY,
    EPOCHS,
    OPTIMISER,
    PATIENCE,
    TUNE,
    Subject,
    followed,
    overruled,
)

SUBJECT = Subject(
    "Passes, batches and steps",
    (
        followed(
            "One to three passes; more make answers surer and less creative.",
            "Language models: 1 to 3 by size of data, 4 where steps are few.",
            EPOCHS,
        ),
        followed(
            "Two passes by default, with an eye on validation.",
            "2 for 1,000 to 50,000 rows; the best checkpoint is kept.",
            EPOCHS,
            PATIENCE,
        ),
        followed(
            "More passes learn more and overfit more; too few undertrain.",
            "At least about 100 steps.",
            EPOCHS,
        ),
        followed(
            "One pass over well chosen data, or mixed sources.",
            "One pass over large data; choosing and mixing stay yours.",
            EPOCHS,
        ),
        followed(
            "Do not repeat small sets of instructions mindlessly.",
            "Few passes, with the best checkpoint kept.",
            EPOCHS,
            PATIENCE,
        ),
        followed(
            "No needless passes over small sets.",
            "Three passes under 1,000 rows, four at most.",
            EPOCHS,
        ),
        followed(
            "Stop early when the loss levels off.",
            "Three evaluations without a gain end a candidate.",
            PATIENCE,
        ),
        followed(
            "Stop early on small sets and watch validation.",
            "Three evaluations without a gain end a candidate, and the best checkpoint is kept.",
            PATIENCE,
        ),
        overruled(
            "A training loss under 0.2 with flat accuracy means overfitting.",
            "What 0.2 means depends on the task; validation decides.",
            "derived here (losses of tasks differ tenfold)",
            PATIENCE,
        ),
        overruled(
            "Batches of 1 to 4.",
            "Small batches are as good as larger ones once the rate is made for them: 16, down to "
            "4 for small data, searched together with the rate.",
            "arXiv:2507.07101",
            BATCH,
            TUNE,
        ),
        overruled(
            "Smaller batches are always more accurate, because noise helps few parameters.",
            "Where this was compared, the rate was held; with a rate tuned for each batch the "
            "difference goes.",
            "arXiv:2507.07101",
            BATCH,
        ),
        followed(
            "Small batches generalise better.",
            "Batches from 4 are in every search of 16 candidates and more.",
            BATCH,
            TUNE,
        ),
        followed(
            "A larger batch needs more memory.",
            "Forecast, and halved until it fits.",
            BATCH,
        ),
        followed(
            "Where a batch does not fit, take a smaller one and accumulate.",
            "The batch is halved until it fits, and accumulation makes the same step.",
            "rule training.gradient_accumulation_steps",
            BATCH,
            "goal memory",
        ),
        followed(
            "A little weight decay, 0.001 to 0.01; 0.001 to start.",
            "The preset takes 0.001; without it 0, and a search tries 0.01.",
            "preset 3-4b",
            DECAY,
        ),
        followed(
            "Against overfitting raise decay to 0.01 to 0.1.",
            "Searches of 32 candidates and more try 0, 0.01 and 0.1.",
            DECAY,
            TUNE,
        ),
        overruled(
            "Weight decay of 0.01 to start.",
            "An adapter starts at zero and stays small: 0 for language models, 0.1 for encoders, "
            "and a search tries 0.01.",
            "arXiv:2106.09685; huggingface/trl",
            DECAY,
        ),
        followed(
            "AdamW suits most ranks.",
            "AdamW.",
            OPTIMISER,
        ),
        followed(
            "SGD saves memory only at large ranks.",
            "It can be asked for; the reason shows what the moments take.",
            OPTIMISER,
            "setting training.optim",
        ),
        followed(
            "A fixed seed, such as 42 or 3407.",
            "Any number, fixed: 42.",
            "rule training.seed",
            "setting training.seed",
        ),
    ),
    differs="small batches are called better in general, or only smaller in memory.",
)
