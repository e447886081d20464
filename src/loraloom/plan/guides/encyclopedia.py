"""Guide 2: an encyclopedia of LoRA parameters."""

from __future__ import annotations

from loraloom.plan.guides.item import Item, followed, overruled

SWEEP = "tinker-cookbook sweep, benchmarks/advice_rate"
R, ALPHA, DROPOUT = "rule adapter.r", "rule adapter.lora_alpha", "rule adapter.lora_dropout"
RATE, EPOCHS = "rule training.learning_rate", "rule training.num_train_epochs"

ITEMS: tuple[Item, ...] = (
    overruled(
        "2.1",
        "Rates of 5e-5 to 1e-4.",
        "Too low for supervised tuning: 2.4% and 1.3% of the loss are lost on average.",
        SWEEP,
        RATE,
    ),
    followed(
        "2.2",
        "A higher rate is faster and may overfit, a lower one needs more passes.",
        "Goal retain halves it; short runs get half as much again.",
        RATE,
        "goal retain",
    ),
    followed(
        "2.3",
        "One to three passes; more make answers surer and less creative.",
        "1 to 3 by size of data, 4 where steps are few.",
        EPOCHS,
    ),
    followed(
        "2.4",
        "More passes learn more and overfit more; too few undertrain.",
        "At least about 100 steps.",
        EPOCHS,
    ),
    followed("2.5", "A rank of 16 to 32.", "16 is the floor of language models.", R),
    followed("2.6", "Alpha of one to two times the rank.", "32 is that at r 16 and 32.", ALPHA),
    overruled(
        "2.7",
        "Dropout of 0.1 to 0.2.",
        "0.1 at most, and 0 for large data.",
        "derived here (rule by rows and passes)",
        DROPOUT,
    ),
    followed(
        "2.8", "A length that suits the data.", "The longest row, measured.", "rule data.max_length"
    ),
    followed(
        "2.9",
        "Warm up over 5 to 10% of the steps.",
        "3 to 20%: ten steps at least, so short runs have more; a search tries 0.06 and 0.1.",
        "rule training.warmup_ratio",
        "command tune",
    ),
    followed(
        "2.10",
        "Let the rate fall, linearly or by a cosine.",
        "Linear; cosine can be asked for.",
        "rule training.lr_scheduler_type",
    ),
    followed("2.11", "A fixed seed, such as 42.", "42.", "rule training.seed"),
    followed(
        "2.12",
        "A larger batch needs more memory.",
        "Forecast, and halved until it fits.",
        "rule training.per_device_train_batch_size",
    ),
    overruled(
        "2.13",
        "Quantise to Q4_K_M.",
        "That is a format of GGUF files, to ship with; bases are trained in NF4.",
        "arXiv:2305.14314; ggml-org/llama.cpp",
        "rule model.quantization",
    ),
    overruled(
        "2.14",
        "Weight decay of 0.01 to start.",
        "An adapter starts at zero and stays small: 0 for language models, 0.1 for encoders, and a"
        " search tries 0.01.",
        "arXiv:2106.09685; huggingface/trl",
        "rule training.weight_decay",
    ),
    followed(
        "2.15",
        "Ranks 8, 16, 32, 64 or 128.",
        "The powers of two that a search holds.",
        R,
        "command tune",
    ),
    followed(
        "2.16",
        "A higher rank for hard tasks, a lower one for speed.",
        "Goals quality and fastest.",
        "goal quality",
        "goal fastest",
        R,
    ),
    followed("2.17", "Alpha as large as the rank or twice that.", "As 2.6.", ALPHA),
    followed(
        "2.18",
        "A larger alpha learns more, a smaller one generalises more.",
        "The rate is set for the scale, so only their product counts.",
        ALPHA,
        RATE,
    ),
    followed(
        "2.19",
        "Dropout of 0 by default: fast, with little effect.",
        "0 for large data and with goal fastest.",
        DROPOUT,
        "goal fastest",
    ),
    followed(
        "2.20",
        "More dropout regularises more and trains slower.",
        "Only where rows are few and seen often.",
        DROPOUT,
    ),
    followed(
        "2.21",
        "Adapt all modules.",
        "All linear layers, found in the model.",
        "rule adapter.target_modules",
    ),
    followed("2.22", "Leave biases alone.", "None.", "rule adapter.bias"),
    followed(
        "2.23",
        "Gradient checkpointing for long rows.",
        "Where the step does not fit without it.",
        "rule training.gradient_checkpointing",
    ),
    overruled(
        "2.24",
        "A vendor's checkpointing saves 30% more.",
        "Its own code for its own trainer; ours is held to measured peaks.",
        "derived here (another engine)",
        "rule training.gradient_checkpointing",
    ),
    followed(
        "2.25",
        "A fixed random state, such as 3407.",
        "Any number, fixed: 42.",
        "rule training.seed",
        "setting training.seed",
    ),
    overruled(
        "2.26",
        "rsLoRA adjusts alpha by itself.",
        "It divides by sqrt(r) instead of r, so the update is sqrt(r) times larger "
        "at the same alpha: the rate has to be tuned anew, and is.",
        "arXiv:2312.03732",
        "rule adapter.use_rslora",
        RATE,
    ),
    overruled(
        "2.27",
        "LoftQ's start improves accuracy.",
        "It matters under 4 bits only, changes the base that candidates share, and "
        "starts land within 1-2% once the rate is tuned.",
        "arXiv:2602.04998",
        "rule adapter.init_lora_weights",
    ),
    followed(
        "2.28",
        "What q, k, v, o, gate, up and down projections do.",
        "Roles are read from the model: attention, mlp and query can be named.",
        "setting adapter.target_modules",
    ),
)
