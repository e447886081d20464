"""How large alpha should be, and what it does."""

from __future__ import annotations

from loraloom.plan.common_advice.item import ALPHA, RATE, TUNE, Subject, followed, overruled

SUBJECT = Subject(
    "Alpha and the scale of the update",
    (
        followed(
            "Alpha of one to two times the rank.",
            "32 at r 16 and 32; twice the rank for encoders.",
            ALPHA,
        ),
        followed(
            "Start with alpha of 2r.",
            "That is alpha at r 16, for every encoder and in some presets.",
            ALPHA,
            "preset sentiment",
        ),
        overruled(
            "Alpha of twice the rank is the official default.",
            "The default of loralib is 1 and that of PEFT is 8; 2r is a habit.",
            "microsoft/LoRA; huggingface/peft",
            ALPHA,
        ),
        followed(
            "Alpha about 2r, to be tuned at large ranks.",
            "32 at r 16; the scale falls as the rank grows.",
            ALPHA,
        ),
        followed(
            "At large ranks a smaller scale: r 256 with alpha 128 did well.",
            "Alpha stays 32 as the rank grows; large searches try scales of 0.5 to 4.",
            ALPHA,
            TUNE,
        ),
        followed(
            "A scale of 0.5 has been good too: try r and 2r, then adjust.",
            "Large searches try scales of 0.5 to 4.",
            ALPHA,
            TUNE,
        ),
        followed(
            "The update is scaled by alpha/r: with alpha above r it weighs more, below r less.",
            "So it is, unless rsLoRA is asked for; the scale is shown beside alpha.",
            ALPHA,
            "test an_update_grows_with_alpha",
        ),
        followed(
            "A large alpha/r has a larger effect.",
            "The rate is divided by the scale.",
            RATE,
            "test an_update_grows_with_alpha",
        ),
        followed(
            "A larger alpha learns more, a smaller one generalises more.",
            "The rate is set for the scale, so only their product counts.",
            ALPHA,
            RATE,
        ),
        overruled(
            "A lower alpha makes larger updates, like a higher rate.",
            "The update is (alpha/r) B A: a lower alpha makes it smaller.",
            "arXiv:2106.09685",
            ALPHA,
            "test an_update_grows_with_alpha",
        ),
        overruled(
            "Where the effect is too weak, raise the rate or lower alpha.",
            "Raise the rate or raise alpha; the rule counts on their product.",
            "arXiv:2106.09685",
            RATE,
            ALPHA,
        ),
        overruled(
            "The update is A B, with A on the output's side.",
            "In PEFT's names A is r x d_in and random, B is d_out x r and zero, and the update is "
            "B A; else LoRA+ would speed up the wrong one.",
            "arXiv:2106.09685; huggingface/peft",
            "test an_update_grows_with_alpha",
            "rule adapter.lora_plus_ratio",
        ),
        overruled(
            "rsLoRA adjusts alpha by itself.",
            "It divides by sqrt(r) instead of r, so the update is sqrt(r) times larger at the "
            "same alpha: the rate has to be tuned anew, and is.",
            "arXiv:2312.03732",
            "rule adapter.use_rslora",
            RATE,
        ),
    ),
    differs="alpha as large as the rank or twice that; and a lower alpha is said to make larger "
    "updates as well as smaller ones.",
)
