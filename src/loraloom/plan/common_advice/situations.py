"""What to set in known situations."""

from __future__ import annotations

from loraloom.plan.common_advice.item import (
    ALPHA,
    BATCH,
    BIAS,
    DROPOUT,
    PATIENCE,
    QUANTIZATION,
    RATE,
    SWEEP,
    TARGETS,
    TUNE,
    Subject,
    followed,
    overruled,
    untested,
)

SUBJECTS = (
    Subject(
        "Models of three to four billion parameters",
        (
            followed(
                "Rank 8 or 16, 32 when it underfits.",
                "16, or what the data ask for.",
                "preset 3-4b",
            ),
            followed(
                "Alpha of r or 2r.",
                "32 at r 16 and 32.",
                "preset 3-4b",
                ALPHA,
            ),
            overruled(
                "Dropout 0.1.",
                "0.1 only under 1,000 rows seen more than once; else 0.05 or 0.",
                "derived here (rule by rows and passes)",
                DROPOUT,
                "preset 3-4b",
            ),
            followed(
                "All attention and MLP weights.",
                "All linear layers.",
                "preset 3-4b",
                TARGETS,
            ),
            followed(
                "A rate of 5e-5 to 2e-4, tried three times up and down.",
                "1.4e-4 at batch 16, searched four times up and down.",
                RATE,
                "preset 3-4b",
                TUNE,
            ),
            followed(
                "One or two passes.",
                "Two at most.",
                "preset 3-4b",
            ),
            overruled(
                "Batches of 1 to 4, always small.",
                "Small batches are as good as larger ones once the rate is made for them, so the "
                "plan's rule stands.",
                "arXiv:2507.07101",
                BATCH,
                "preset 3-4b",
            ),
        ),
    ),
    Subject(
        "Sentiment",
        (
            followed(
                "Rank 16.",
                "16.",
                "preset sentiment",
            ),
            followed(
                "Alpha 32.",
                "Twice the rank.",
                "preset sentiment",
            ),
            followed(
                "Dropout 0.1.",
                "0.1 under 10,000 rows; the rule's for more.",
                "preset sentiment",
            ),
            overruled(
                "DistilBERT's four attention layers.",
                "Leaving the MLP out loses more than a smaller rank does.",
                "arXiv:2305.14314",
                "preset sentiment",
            ),
            followed(
                "No biases.",
                "None.",
                "preset sentiment",
            ),
        ),
    ),
    Subject(
        "Generation",
        (
            overruled(
                "Rank 8.",
                "4 -> 16 gains 0.74% of the loss: 16, or what the data ask for.",
                SWEEP,
                "preset generation",
            ),
            followed(
                "Alpha of 2r.",
                "32 at r 16.",
                "preset generation",
            ),
            followed(
                "Dropout 0.05.",
                "0.05 under 10,000 rows; the rule's for more.",
                "preset generation",
            ),
            overruled(
                "Q, K, V and O.",
                "Leaving the MLP out loses more than a smaller rank does.",
                "arXiv:2305.14314",
                "preset generation",
            ),
            followed(
                "No biases.",
                "None.",
                "preset generation",
            ),
        ),
    ),
    Subject(
        "Question answering",
        (
            followed(
                "Rank 32.",
                "32.",
                "preset question-answering",
            ),
            followed(
                "Alpha 64.",
                "Twice the rank; the rate is set for it.",
                "preset question-answering",
            ),
            followed(
                "Dropout 0.1.",
                "0.1 under 10,000 rows; the rule's for more.",
                "preset question-answering",
            ),
            overruled(
                "For T5: gate, up and down projections.",
                "Those are LLaMA's names and match nothing in T5: the layers of the model itself are "
                "found.",
                "huggingface/transformers",
                "preset question-answering",
                TARGETS,
            ),
            overruled(
                "Train biases too.",
                "The table behind it shows a loss of 4.4 points by biases.",
                "the table behind it",
                "preset question-answering",
                BIAS,
            ),
        ),
    ),
    Subject(
        "Devices with less than 8 GB",
        (
            overruled(
                "Rank 4.",
                "The adapter is the smallest part of the peak: 8, since below 16 each step down costs.",
                SWEEP,
                "preset under-8gb",
            ),
            followed(
                "Alpha of 2r.",
                "Twice the rank.",
                "preset under-8gb",
            ),
            followed(
                "Dropout 0.05.",
                "0.05 under 10,000 rows; the rule's for more.",
                "preset under-8gb",
            ),
            overruled(
                "Queries alone.",
                "The table behind it shows 4.3 points lost; the MLP alone with a smaller rank is the "
                "better saving.",
                "the table behind it; huggingface/peft method comparison",
                "preset under-8gb",
            ),
            followed(
                "No biases.",
                "None.",
                "preset under-8gb",
            ),
            followed(
                "A base of 4 bits.",
                "NF4 where the base does not fit as it is, on a CPU and on CUDA.",
                "preset under-8gb",
                QUANTIZATION,
            ),
        ),
    ),
    Subject(
        "Adapters that serve as a memory",
        (
            followed(
                "They begin at the same defaults as any other.",
                "The presets change a few rules; the rest stays.",
                "preset memory-episodic",
                "preset memory-relational",
                "preset memory-spatial",
            ),
            followed(
                "Episodic memory: r 16 to 32.",
                "16, up to 32 where the rule asks for it.",
                "preset memory-episodic",
            ),
            followed(
                "Episodic memory: a rate at which one sighting is learnt.",
                "No less than 1e-3 (2e-4 from a billion parameters).",
                "preset memory-episodic",
            ),
            followed(
                "Episodic memory: alpha of 2r gives new memories weight.",
                "Alpha 2r.",
                "preset memory-episodic",
            ),
            followed(
                "Episodic memory: overfitting is unlikely, but watch for specialising on rare events.",
                "Dropout of 0.05 at most; validation is scored while training.",
                "preset memory-episodic",
                PATIENCE,
            ),
            followed(
                "An event is not recalled: raise rank or rate.",
                "Both are in the search round the preset.",
                "preset memory-episodic",
                TUNE,
            ),
            followed(
                "A few more passes to memorise.",
                "Four passes at least.",
                "preset memory-episodic",
            ),
            overruled(
                "Relational memory: smaller rank or rate, for gradual change.",
                "As of events: of 25 facts after 75 steps r 16 answered 89% in other words, r 8 74%, r 8"
                " with alpha 8 36%, and r 16 at a fifth of the rate 20%.",
                "benchmarks/recall/README.md",
                "preset memory-relational",
            ),
            overruled(
                "Relational memory: dropout of 0.1 against the noise of episodes.",
                "None: with 0.1 it was 85% instead of 89%.",
                "benchmarks/recall/README.md",
                "preset memory-relational",
            ),
            overruled(
                "Facts overfit to episodes: lower the rate or raise dropout.",
                "More wordings of a fact, and what follows from it; either of the two made it worse.",
                "benchmarks/recall/README.md",
                "command recall sleep",
            ),
            followed(
                "Learn events first, then consolidate them with smaller rates or averaged weights.",
                "recall sleep trains on all that was learnt at two thirds of the rate; only what follows"
                " from facts, new to it, takes the whole rate. Averaged weights kept no more than the"
                " last ones.",
                "command recall sleep",
            ),
            followed(
                "Spatial memory: r 16 to 32.",
                "32, as far as the model's width bears it.",
                "preset memory-spatial",
            ),
            followed(
                "Spatial memory: replayed paths bear larger ranks or longer training.",
                "Three passes at least.",
                "preset memory-spatial",
            ),
            untested(
                "Spatial memory: dropout of about 0.1.",
                "None, since every step of a route has to be right. Ways that nobody went are found"
                " without it; whether they would be with it, no trial has shown.",
                "preset memory-spatial",
            ),
        ),
    ),
)
