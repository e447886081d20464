"""How large the rank should be."""

from __future__ import annotations

from loraloom.plan.common_advice.item import ALPHA, RATE, SWEEP, TUNE, R, Subject, followed, overruled

SUBJECT = Subject(
    "Rank",
    (
        followed(
            "Start at a rank of 8 or 16 and raise it where the model underfits.",
            "8 for encoders, 16 for language models; goal quality and a search go higher.",
            R,
            "goal quality",
            TUNE,
        ),
        followed(
            "Begin with r 4, 8 or 16 for small and middling tasks.",
            "The floors are 8 and 16.",
            R,
        ),
        followed(
            "Ranks of 16 to 32.",
            "16 is the floor of language models.",
            R,
        ),
        overruled(
            "Models of about 3B: r 8 with alpha 8.",
            "4 -> 16 gains 0.74% of the loss; rank 16 costs little more.",
            SWEEP,
            R,
            "preset 3-4b",
        ),
        followed(
            "Ranks of 16 to 64 were best for 3B models on language tasks.",
            "16 is the floor, data raise it, and a search holds the rest.",
            R,
            TUNE,
        ),
        followed(
            "Ranks of 4 to 64 for most uses; a larger one takes memory.",
            "8 or 16 and up, sized by the data.",
            R,
        ),
        followed(
            "Ranks 8, 16, 32, 64 or 128.",
            "The powers of two that a search holds.",
            R,
            TUNE,
        ),
        followed(
            "Rank 16 suits most tasks.",
            "The floor of language models, and of the presets.",
            R,
            "preset 3-4b",
            "preset sentiment",
        ),
        followed(
            "Small models try r 4, 8 and 16, large ones 64 to 256.",
            "Searches hold powers of two from 8; the data, not the model's size, lift the plan's "
            "rank, up to 256.",
            R,
            TUNE,
        ),
        followed(
            "For hard tasks and new domains up to 64 or 256.",
            "More supervised tokens ask for more, up to 256.",
            R,
            "goal quality",
        ),
        followed(
            "Rank 32 and more for the most demanding tasks.",
            "64 with goal quality; more data raise it by themselves.",
            "goal quality",
            R,
        ),
        followed(
            "Rank 8 or less where resources are short.",
            "8 with goals memory and fastest.",
            "goal memory",
            "goal fastest",
        ),
        followed(
            "A higher rank for hard tasks, a lower one for speed.",
            "Goals quality and fastest.",
            "goal quality",
            "goal fastest",
            R,
        ),
        followed(
            "A larger rank brings capacity, memory and a risk of overfitting; gains level off.",
            "The rank is sized by the supervised tokens and bounded by the width.",
            R,
        ),
        followed(
            "Start small and raise the rank while validation shows underfitting.",
            "Sized by data, then searched.",
            R,
            TUNE,
        ),
        followed(
            "Baseline: a rank of 4 to 16 and alpha of 2r.",
            "r 16 with alpha 32; encoders r 8 with alpha 16.",
            R,
            ALPHA,
        ),
        overruled(
            "The rank is the most important setting.",
            "The rate is: on Qwen2.5-7B it alone moves 5.0 to 14.2 points, the rank 4.5 to 13.1, "
            "and in the sweep a rate ten times off loses more than rank 4 does.",
            "arXiv:2508.02932; tinker-cookbook sweep",
            RATE,
            R,
        ),
        followed(
            "From 4 to 16 gains much, from 16 to 32 little.",
            "0.74% of the loss from 4 to 16, 0.39% from 16 to 64.",
            R,
        ),
        overruled(
            "From 16 to 32 accuracy rises by 0.34 points.",
            "The table behind it shows a loss of 3.1 points; both are within the noise of one seed.",
            "the table behind it",
            R,
        ),
        followed(
            "One rank for all layers mostly works well.",
            "That is the default.",
            R,
            "rule adapter.rank_pattern",
        ),
        followed(
            "Larger ranks in later layers are for those who know why.",
            "`adapter.rank_pattern` takes them.",
            "setting adapter.rank_pattern",
        ),
        followed(
            "Layers may want different ranks; groups can be tuned.",
            "`adapter.rank_pattern` takes them.",
            "setting adapter.rank_pattern",
        ),
    ),
    differs="ranks from 4 to 256 are named, and 8, 16 or 32 to start with.",
)
