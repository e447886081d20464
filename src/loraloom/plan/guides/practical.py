"""Guide 1: a practical guide to LoRA, from the idea to common faults."""

from __future__ import annotations

from loraloom.plan.guides.item import Item, followed, overruled

R, ALPHA, DROPOUT = "rule adapter.r", "rule adapter.lora_alpha", "rule adapter.lora_dropout"
RATE, EPOCHS, TARGETS = (
    "rule training.learning_rate",
    "rule training.num_train_epochs",
    "rule adapter.target_modules",
)
BATCH, PATIENCE = "rule training.per_device_train_batch_size", "rule training.early_stopping_patience"
QUANTIZATION, CHECKPOINTING = "rule model.quantization", "rule training.gradient_checkpointing"
SWEEP = "tinker-cookbook sweep, benchmarks/advice_rate"

ITEMS: tuple[Item, ...] = (
    followed(
        "1.1",
        "Freeze the base; only the adapter is trained.",
        "The base is shared by all candidates and never changes.",
        "command train",
        "command tune",
    ),
    followed(
        "1.2",
        "Ranks of 4 to 64 for most uses; a larger one takes memory.",
        "8 or 16 and up, sized by the data.",
        R,
    ),
    followed(
        "1.3",
        "Alpha about 2r, to be tuned at large ranks.",
        "32 at r 16; the scale falls as the rank grows.",
        ALPHA,
    ),
    overruled(
        "1.4",
        "A quantised base saves a third of the memory at 39% more time.",
        "The source's own times give 50% more, and litgpt measured 56%: the ladder takes it after"
        " checkpointing.",
        "arXiv:2305.14314; litgpt",
        QUANTIZATION,
    ),
    followed(
        "1.5",
        "No mindless repetition of small instruction sets.",
        "Few passes, with the best checkpoint kept.",
        EPOCHS,
        PATIENCE,
    ),
    overruled(
        "1.6",
        "The update is A B, with A on the output's side.",
        "In PEFT's names A is r x d_in and random, B is d_out x r and zero, and the update is B A; else"
        " LoRA+ would speed up the wrong one.",
        "arXiv:2106.09685; huggingface/peft",
        "test an_update_grows_with_alpha",
        "rule adapter.lora_plus_ratio",
    ),
    followed(
        "1.7",
        "The update is scaled by alpha / r.",
        "So it is, unless rsLoRA is asked for.",
        ALPHA,
        "test an_update_grows_with_alpha",
    ),
    overruled(
        "1.8",
        "Attention projections (Q, K, V, O) are what most people adapt.",
        "Leaving the MLP out loses more than a smaller rank does.",
        "arXiv:2305.14314",
        TARGETS,
    ),
    followed(
        "1.9",
        "More layers often do better, at more memory.",
        "All linear layers, unless memory is short.",
        TARGETS,
        "goal memory",
    ),
    followed(
        "1.10",
        "Both projections start so that the update is zero.",
        "One is random, the other zero.",
        "rule adapter.init_lora_weights",
    ),
    overruled(
        "1.11",
        "An example adapts q_proj and v_proj with r 8, alpha 16, dropout 0.05 and no biases.",
        "Rank, targets and dropout follow the model and the data; alpha/r of 2 is ours at r 16.",
        f"arXiv:2305.14314; {SWEEP}",
        R,
        TARGETS,
        DROPOUT,
        ALPHA,
    ),
    followed(
        "1.12",
        "Use PEFT to apply and keep adapters.",
        "Adapters are saved in PEFT's format and checked by loading them in it.",
        "command train",
        "command tune",
    ),
    followed(
        "1.13", "Begin with r 4, 8 or 16 for small and middling tasks.", "The floors are 8 and 16.", R
    ),
    followed(
        "1.14",
        "For hard tasks and new domains up to 64 or 256.",
        "More supervised tokens ask for more, up to 256.",
        R,
        "goal quality",
    ),
    followed(
        "1.15",
        "alpha = 2r is a stable start.",
        "That is alpha/r of 2 at r 16 and for every encoder.",
        ALPHA,
    ),
    followed(
        "1.16",
        "A large alpha/r has a larger effect.",
        "The rate is divided by the scale.",
        RATE,
        "test an_update_grows_with_alpha",
    ),
    followed(
        "1.17",
        "At large ranks a smaller scale: r 256 with alpha 128 did well.",
        "Alpha stays 32 as the rank grows; large searches try scales of 0.5 to 4.",
        ALPHA,
        "command tune",
    ),
    followed(
        "1.18",
        "Rates of 1e-4 to 5e-4, tuned for the task.",
        "The rule lies there for the usual ranks and batches, and a search turns it first.",
        RATE,
        "command tune",
    ),
    followed(
        "1.19",
        "A smaller rate keeps more of what the base could do.",
        "Half of it with goal retain.",
        "goal retain",
    ),
    followed(
        "1.20",
        "A little dropout (0.05) on small sets.",
        "0.05 under 10,000 rows seen twice, 0.1 under 1,000.",
        DROPOUT,
    ),
    followed(
        "1.21",
        "Mixed precision, bf16 or fp16.",
        "bf16 for the base where the device has it, fp32 for the adapter.",
        "rule training.precision",
    ),
    followed(
        "1.22",
        "Gradient checkpointing trades time for memory.",
        "First rung of the memory ladder, where the engine has it.",
        CHECKPOINTING,
    ),
    followed(
        "1.23",
        "A small device takes a tiny batch and accumulates.",
        "Micro-batches of the same step.",
        BATCH,
        "rule training.gradient_accumulation_steps",
    ),
    followed("1.24", "AdamW suits most ranks.", "AdamW.", "rule training.optim"),
    followed(
        "1.25",
        "SGD saves memory only at large ranks.",
        "It can be asked for; the reason shows what the moments take.",
        "rule training.optim",
        "setting training.optim",
    ),
    followed(
        "1.26",
        "One pass over well chosen data, or mixed sources.",
        "One pass over large data; choosing and mixing stay yours.",
        EPOCHS,
    ),
    overruled(
        "1.27",
        "Out of memory: a smaller rank comes first.",
        "The adapter is the smallest part of the peak: batch, checkpointing and fewer bits come first,"
        " the rank last.",
        "arXiv:2305.14314",
        BATCH,
        "goal memory",
    ),
    followed(
        "1.28", "Out of memory: a base of 4 bits.", "NF4, where device and engine can.", QUANTIZATION
    ),
    followed(
        "1.29",
        "Out of memory: mixed precision.",
        "Goal memory takes bf16 wherever it runs in hardware.",
        "rule training.precision",
        "goal memory",
    ),
    followed(
        "1.30",
        "Out of memory: gradient checkpointing.",
        "On where the step does not fit, where the engine has it.",
        CHECKPOINTING,
    ),
    followed(
        "1.31",
        "Out of memory: a smaller batch with accumulation.",
        "The batch is halved until it fits.",
        BATCH,
        "goal memory",
    ),
    overruled(
        "1.32",
        "Out of memory: move frozen weights to the CPU.",
        "Each step would wait for the bus; candidates share one base on the device instead.",
        "arXiv:2508.02932",
        "rule limits.max_packed",
    ),
    followed(
        "1.33",
        "Rank: start small and raise it while validation shows underfitting.",
        "Sized by data, then searched.",
        R,
        "command tune",
    ),
    followed(
        "1.34",
        "Diverging: lower the rate.",
        "A diverging candidate is ended; the search goes on with lower rates.",
        RATE,
        "command tune",
    ),
    followed(
        "1.35",
        "Diverging: a smaller alpha, or 2r.",
        "Large searches try smaller scales.",
        ALPHA,
        "command tune",
    ),
    overruled(
        "1.36",
        "Diverging: add dropout.",
        "Dropout adds noise to the gradient; clipping and warm-up are there for this.",
        "derived here (what clipping does)",
        "rule training.max_grad_norm",
        "rule training.warmup_ratio",
    ),
    followed(
        "1.37",
        "Use a schedule; a cosine or half cycle of it helps SGD more than Adam.",
        "Linear for AdamW; cosine and half_cycle_cosine can be asked for.",
        "rule training.lr_scheduler_type",
        "setting training.lr_scheduler_type",
    ),
    followed(
        "1.38",
        "Quantised bases: use libraries made for them, and paged optimisers.",
        "NF4 by bitsandbytes where the engine has it; AdamW's moments are too small to page.",
        QUANTIZATION,
        "rule training.optim",
    ),
    followed(
        "1.39",
        "Check that a quantised run is stable.",
        "Candidates are scored on validation while they run.",
        "command tune",
    ),
    followed(
        "1.40",
        "Small sets: stop early and watch validation.",
        "Patience of three, and the best checkpoint is kept.",
        PATIENCE,
    ),
    followed(
        "1.41",
        "Small sets: mix or augment data.",
        "Goal retain says so; the rows are yours to add.",
        "goal retain",
    ),
    followed(
        "1.42",
        "Small sets: smaller rank and rate, and regularise.",
        "Goal retain, and dropout by rows and passes.",
        "goal retain",
        DROPOUT,
    ),
    followed(
        "1.43", "Small sets: no needless passes.", "Three passes under 1,000 rows, four at most.", EPOCHS
    ),
    followed(
        "1.44",
        "Stacked adapters should not touch the same layers unless fused.",
        "A run trains and saves adapters that stand alone; generate shows several side by side, never"
        " stacked.",
        "command generate",
    ),
    followed(
        "1.45",
        "Or adapt separate layers one after another.",
        "Targets can be named by path.",
        "setting adapter.target_modules",
    ),
    followed(
        "1.46",
        "Save and load with PEFT's own functions.",
        "Each adapter is reloaded by PEFT and compared before it counts as saved.",
        "command train",
        "command tune",
    ),
    followed(
        "1.47",
        "Baseline: a rank of 4 to 16 and alpha of 2r.",
        "r 16 with alpha 32; encoders r 8 with alpha 16.",
        R,
        ALPHA,
    ),
    followed("1.48", "Be careful with passes over small sets.", "As 1.43.", EPOCHS),
    followed(
        "1.49",
        "Keep logs, and repeat with several seeds.",
        "Events, metrics and curves are kept; finalists run over three seeds.",
        "setting search.seeds_for_finalists",
        "rule training.seed",
    ),
    followed(
        "1.50",
        "Data matter most: rich and diverse rows rather than more passes.",
        "The plan warns of repeated rows, leaks, lost ends and one-sided labels.",
        "command plan",
    ),
    followed(
        "1.51", "LoRA suits domain adaptation.", "Plain text is taken as it is.", "setting data.format"
    ),
    followed(
        "1.52",
        "Memory depends on model, rank, precision, moments, batch, length, checkpointing and"
        " offloading.",
        "All but offloading are itemised in the forecast.",
        "command plan",
    ),
    followed(
        "1.53",
        "LoRA is a way to hold weights, not a replacement for preference training.",
        "Supervised tuning only, and the rule for the rate says so.",
        RATE,
    ),
    followed(
        "1.54",
        "Adapters can be merged or applied one after another, with care.",
        "The adapter is PEFT's own and merges there; generate compares adapters beside the base.",
        "command generate",
    ),
    followed(
        "1.55",
        "Layers may want different ranks; groups can be tuned.",
        "`adapter.rank_pattern`.",
        "setting adapter.rank_pattern",
    ),
)
