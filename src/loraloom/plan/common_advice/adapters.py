"""What to train on, and what to do with the adapter."""

from __future__ import annotations

from loraloom.plan.common_advice.item import TUNE, Subject, followed

SUBJECT = Subject(
    "Rows and adapters",
    (
        followed(
            "Data matter most: rich and diverse rows rather than more passes.",
            "The plan warns of repeated rows, leaks, lost ends and one-sided labels.",
            "command plan",
        ),
        followed(
            "LoRA suits domain adaptation.",
            "Plain text is taken as it is.",
            "setting data.format",
        ),
        followed(
            "Freeze the base; only the adapter is trained.",
            "The base is shared by all candidates and never changes.",
            "command train",
            TUNE,
        ),
        followed(
            "Use PEFT to apply and keep adapters.",
            "Adapters are saved in PEFT's format and checked by loading them in it.",
            "command train",
            TUNE,
        ),
        followed(
            "Save and load with PEFT's own functions.",
            "Each adapter is reloaded by PEFT and compared before it counts as saved.",
            "command train",
            TUNE,
        ),
        followed(
            "Stacked adapters should not touch the same layers unless fused.",
            "A run trains and saves adapters that stand alone, and generate shows several side by"
            " side, never stacked. adapter combine shows before where they meet, and by how much.",
            "command adapter combine",
            "command generate",
        ),
        followed(
            "Adapters can be merged or applied one after another, with care.",
            "adapter merge and combine write what was asked for, and prove that it is that.",
            "command adapter merge",
            "command adapter combine",
        ),
    ),
)
