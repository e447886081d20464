"""Guide 3: a configuration guide from experiments on sentiment."""

from __future__ import annotations

from loraloom.plan.guides.item import Item, followed, overruled

SWEEP = "tinker-cookbook sweep, benchmarks/advice_rate"
R, ALPHA, DROPOUT = "rule adapter.r", "rule adapter.lora_alpha", "rule adapter.lora_dropout"
TARGETS, BIAS = "rule adapter.target_modules", "rule adapter.bias"
ALL_LAYERS = "Leaving the MLP out loses more than a smaller rank does."
TABLE = "guide 3's own table"

ITEMS: tuple[Item, ...] = (
    overruled(
        "3.1",
        "The rank is the most important setting.",
        "The rate is: on Qwen2.5-7B it alone moves 5.0 to 14.2 points, the "
        "rank 4.5 to 13.1, and in the sweep a rate ten times off loses more than rank 4 does.",
        "arXiv:2508.02932; tinker-cookbook sweep",
        "rule training.learning_rate",
        R,
    ),
    followed(
        "3.2",
        "From 4 to 16 gains much, from 16 to 32 little.",
        "0.74% of the loss from 4 to 16, 0.39% from 16 to 64.",
        R,
    ),
    overruled(
        "3.3",
        "From 16 to 32 accuracy rises by 0.34 points.",
        "Its table shows a loss of 3.1 points; both are within the noise of one seed.",
        TABLE,
        R,
    ),
    followed(
        "3.4",
        "Rank 16 suits most tasks.",
        "The floor of language models, and of the presets.",
        R,
        "preset 3-4b",
        "preset sentiment",
    ),
    followed(
        "3.5",
        "r 8 or less where resources are short.",
        "8 with goals memory and fastest.",
        "goal memory",
        "goal fastest",
    ),
    followed(
        "3.6",
        "r 32 and more for the most demanding tasks.",
        "64 with goal quality; more data raise it by themselves.",
        "goal quality",
        R,
    ),
    followed(
        "3.7",
        "alpha/r multiplies the update; above r it weighs more, below r less.",
        "The scale is shown beside alpha.",
        ALPHA,
        "test an_update_grows_with_alpha",
    ),
    followed(
        "3.8",
        "Start with alpha of 2r.",
        "32 at r 16, and 2r for encoders and presets.",
        ALPHA,
        "preset sentiment",
    ),
    overruled(
        "3.9", "Start with all attention layers, Q, K, V and O.", ALL_LAYERS, "arXiv:2305.14314", TARGETS
    ),
    overruled(
        "3.10",
        "Queries alone where few parameters are wanted.",
        "Its table shows 4.3 points lost; the MLP alone with a smaller rank is the better saving.",
        f"{TABLE}; huggingface/peft method comparison",
        "goal memory",
    ),
    overruled(
        "3.11", "Queries, keys and values as a compromise.", ALL_LAYERS, "arXiv:2305.14314", TARGETS
    ),
    followed(
        "3.12",
        "All projections where most adaptation is wanted.",
        "Always, unless memory is short.",
        TARGETS,
    ),
    overruled(
        "3.13",
        "Dropout of 0.1 in most cases.",
        "By rows and passes: 0.1, 0.05 or 0.",
        "derived here (rule by rows and passes)",
        DROPOUT,
    ),
    overruled(
        "3.14",
        "Dropout of 0.3 for large sets, none for small ones.",
        "The other way round: large data need less.",
        "derived here (rule by rows and passes)",
        DROPOUT,
    ),
    followed(
        "3.15",
        "More dropout where overfitting shows.",
        "A search tries 0, 0.05 and 0.1.",
        DROPOUT,
        "command tune",
    ),
    followed("3.16", "Train no biases at first.", "None.", BIAS),
    overruled(
        "3.17",
        "Biases of adapted layers gain 0.2 points.",
        "Its table shows a loss of 4.4 points.",
        TABLE,
        BIAS,
    ),
    followed(
        "3.18",
        "All biases for the most adaptation.",
        "`adapter.bias: all` can be asked for.",
        "setting adapter.bias",
    ),
    followed("3.19", "Sentiment: r 16.", "16.", "preset sentiment"),
    followed("3.20", "Sentiment: alpha 32.", "Twice the rank.", "preset sentiment"),
    followed(
        "3.21",
        "Sentiment: dropout 0.1.",
        "0.1 under 10,000 rows; the rule's for more.",
        "preset sentiment",
    ),
    overruled(
        "3.22",
        "Sentiment: DistilBERT's four attention layers.",
        ALL_LAYERS,
        "arXiv:2305.14314",
        "preset sentiment",
    ),
    followed("3.23", "Sentiment: no biases.", "None.", "preset sentiment"),
    overruled(
        "3.24",
        "Generation: r 8.",
        "4 -> 16 gains 0.74% of the loss: 16, or what the data ask for.",
        SWEEP,
        "preset generation",
    ),
    followed("3.25", "Generation: alpha of 2r.", "32 at r 16.", "preset generation"),
    followed(
        "3.26",
        "Generation: dropout 0.05.",
        "0.05 under 10,000 rows; the rule's for more.",
        "preset generation",
    ),
    overruled("3.27", "Generation: Q, K, V and O.", ALL_LAYERS, "arXiv:2305.14314", "preset generation"),
    followed("3.28", "Generation: no biases.", "None.", "preset generation"),
    followed("3.29", "Question answering: r 32.", "32.", "preset question-answering"),
    followed(
        "3.30",
        "Question answering: alpha 64.",
        "Twice the rank; the rate is set for it.",
        "preset question-answering",
    ),
    followed(
        "3.31",
        "Question answering: dropout 0.1.",
        "0.1 under 10,000 rows; the rule's for more.",
        "preset question-answering",
    ),
    overruled(
        "3.32",
        "Question answering with T5: gate, up and down projections.",
        "Those are LLaMA's names and match nothing in T5: the model's own layers are found.",
        "huggingface/transformers",
        "preset question-answering",
        TARGETS,
    ),
    overruled(
        "3.33",
        "Question answering: train biases too.",
        "As 3.17.",
        TABLE,
        "preset question-answering",
        BIAS,
    ),
    overruled(
        "3.34",
        "Under 8 GB: r 4.",
        "The adapter is the smallest part of the peak: 8, since below 16 each step down costs.",
        SWEEP,
        "preset under-8gb",
    ),
    followed("3.35", "Under 8 GB: alpha of 2r.", "Twice the rank.", "preset under-8gb"),
    followed(
        "3.36",
        "Under 8 GB: dropout 0.05.",
        "0.05 under 10,000 rows; the rule's for more.",
        "preset under-8gb",
    ),
    overruled(
        "3.37",
        "Under 8 GB: queries alone.",
        "The MLP alone, as 3.10.",
        f"{TABLE}; huggingface/peft method comparison",
        "preset under-8gb",
    ),
    followed("3.38", "Under 8 GB: no biases.", "None.", "preset under-8gb"),
    followed(
        "3.39",
        "Under 8 GB: a base of 4 bits.",
        "NF4 on CUDA devices where the engine has it and weights are large.",
        "preset under-8gb",
        "rule model.quantization",
    ),
    followed(
        "3.40",
        "When unsure, start with a baseline.",
        "The plan's setting is the first candidate.",
        "command tune",
    ),
    overruled(
        "3.41",
        "The baseline: r 16, alpha 32, all attention layers.",
        f"r 16 and alpha 32 are ours. {ALL_LAYERS}",
        "arXiv:2305.14314",
        TARGETS,
        R,
        ALPHA,
    ),
    followed(
        "3.42",
        "Try it on part of the data.",
        "`data.max_rows` takes a seeded sample.",
        "setting data.max_rows",
    ),
    followed(
        "3.43",
        "Good but slow: a smaller rank, fewer modules.",
        "Goals fastest and memory.",
        "goal fastest",
        "goal memory",
    ),
    followed(
        "3.44",
        "Poor: a larger rank, more modules.",
        "Goal quality; all modules are there already.",
        "goal quality",
        TARGETS,
    ),
    overruled(
        "3.45",
        "Six configurations in order of accuracy.",
        "One seed and 872 rows: a difference has a standard error of 1.7 "
        "points, so most of the order is chance; finalists here run over several seeds.",
        "derived here (two shares of 872 rows)",
        "setting search.seeds_for_finalists",
    ),
)
