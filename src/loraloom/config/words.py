"""What other tools call our keys, options and values; one table for config files, `--set` and flags.

The words are those of PEFT, transformers' TrainingArguments, TRL, Axolotl, LLaMA-Factory, mlx-lm,
Lightning and Optuna. A flag of theirs is taken as it is typed; in a file or in `--set` the message names
our key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from loraloom.config import names

_ALSO: Mapping[str, str] = {
    names.NAME_OR_PATH: (
        "m base base_model base_model_name model_id model_name model_name_or_path model_path hf_path "
        "pretrained_model_name_or_path"
    ),
    names.REVISION: "model_revision",
    names.DTYPE: "torch_dtype",
    names.ATTN_IMPLEMENTATION: "attention",
    names.TRAIN: (
        "d data_file data_files data_path dataset dataset_name dataset_path datasets train_data"
        " train_dataset train_file train_files train_path training_data"
    ),
    names.VALIDATION: (
        "dev_file eval_data eval_dataset eval_file val_data val_file val_set_size val_size valid_file "
        "validation_data validation_file validation_split"
    ),
    names.TEST: "test_data test_dataset test_file test_size",
    names.FORMAT: "dataset_format dataset_type",
    names.MAX_LENGTH: (
        "block_size context_length cutoff_len max_input_length max_len max_seq_len max_seq_length"
        " max_sequence_length max_source_length model_max_length seq_len seq_length sequence_len"
        " sequence_length"
    ),
    names.PACKING: "pack sample_packing",
    names.TEXT_COLUMN: "dataset_text_field text_column_name text_field text_key",
    names.LABEL_COLUMN: "label_column_name label_field label_key",
    names.MAX_ROWS: "max_samples max_train_samples",
    names.R: "lora_dim lora_r lora_rank rank",
    names.LORA_ALPHA: "alpha",
    names.LORA_DROPOUT: "dropout",
    names.TARGET_MODULES: "lora_modules lora_target lora_target_modules target_module targets",
    names.USE_RSLORA: "rslora",
    names.USE_DORA: "dora",
    names.INIT_LORA_WEIGHTS: "peft_init_lora_weights",
    names.MODULES_TO_SAVE: "additional_target lora_modules_to_save",
    names.LORA_PLUS_RATIO: "loraplus_lr_ratio loraplus_ratio",
    names.LEARNING_RATE: "lr peak_lr",
    names.LR_SCHEDULER_TYPE: "lr_schedule lr_scheduler schedule scheduler",
    names.WARMUP_RATIO: "warmup warmup_proportion",
    names.NUM_TRAIN_EPOCHS: "epoch epochs max_epochs n_epochs num_epochs",
    names.MAX_STEPS: (
        "iterations iters max_train_steps num_iters num_steps num_train_steps steps train_steps"
    ),
    names.PER_DEVICE_TRAIN_BATCH_SIZE: (
        "batch batch_size bs micro_batch_size per_device_batch_size train_batch_size"
    ),
    names.GRADIENT_ACCUMULATION_STEPS: (
        "accumulate_grad_batches accumulation_steps grad_accum grad_accumulation_steps "
        "gradient_accumulation"
    ),
    names.WEIGHT_DECAY: "wd",
    names.OPTIM: "optimiser optimizer",
    names.MAX_GRAD_NORM: "clip_grad_norm grad_clip gradient_clip_val gradient_clipping",
    names.GRADIENT_CHECKPOINTING: (
        "activation_checkpointing grad_checkpoint use_gradient_checkpointing"
    ),
    names.PRECISION: "mixed_precision",
    names.SEED: "random_seed",
    names.EARLY_STOPPING_PATIENCE: "early_stopping patience",
    names.NEFTUNE_NOISE_ALPHA: "neftune neftune_alpha noisy_embedding_alpha",
    names.BETA: "beta dpo_beta pref_beta",
    names.LOSS_TYPE: "dpo_loss pref_loss",
    names.TRIALS: "n_trials num_trials",
    names.SPACE: "param_space search_space",
    names.METRIC: "metric_for_best_model objective",
    names.MEMORY: "gpu_memory max_memory memory_budget vram",
    names.TIME: "max_time time_budget timeout",
    "output_dir": "o outdir out_dir output output_directory output_path save_dir save_path",
    "report_to": "logger trackers",
    "name": "exp_name experiment_name run_name",
    "task": "task_type",
}

ALIASES: Mapping[str, str] = {word: key for key, words in _ALSO.items() for word in words.split()}
"""Word of another tool -> our key, where both take the same values."""

SETTINGS: Mapping[str, tuple[str, str]] = {
    "qlora": (names.QUANTIZATION, "nf4"),
    "load_in_4bit": (names.QUANTIZATION, "nf4"),
    "load_in_8bit": (names.QUANTIZATION, "int8"),
    "bf16": (names.PRECISION, "bf16"),
    "fp16": (names.PRECISION, "fp16"),
    "fp32": (names.PRECISION, "fp32"),
    "flash_attn": (names.ATTN_IMPLEMENTATION, "flash_attention_2"),
    "flash_attention": (names.ATTN_IMPLEMENTATION, "flash_attention_2"),
    "use_flash_attention_2": (names.ATTN_IMPLEMENTATION, "flash_attention_2"),
    "wandb": ("report_to", "[wandb]"),
    "tensorboard": ("report_to", "[tensorboard]"),
    "mlflow": ("report_to", "[mlflow]"),
}
"""Switch of another tool -> our key and the value that it stands for."""

OPTIONS: Mapping[str, str] = {
    word: option
    for option, words in {
        "--adapter": (
            "adapter_name_or_path adapter_path adapters checkpoint lora lora_path lora_weights peft"
            " peft_model"
        ),
        "--out": "o output output_file output_path result_file save_path",
        "--max-new-tokens": "max_gen_len max_length max_tokens n_predict num_predict",
        "--temperature": "temp",
        "--system": "system_message system_prompt",
        "--metric": "metrics",
        "--resume": "resume_from resume_from_checkpoint",
        "--dry-run": "dryrun",
        "--probabilities": "probs proba return_all_scores",
        "": "c config config_file prompt",
    }.items()
    for word in words.split()
}
"""Option of another tool -> ours, where it is no key of the config; "" is the argument
without a name."""

_ONE_DEVICE = (
    "there is none: a candidate trains on one device, which is chosen by itself (CUDA_VISIBLE_DEVICES"
    " picks a GPU); --workers 2 spreads a search over several"
)
_BY_TIME = (
    "there is none: checkpoints are written by themselves, at the end of each candidate and every 30"
    " seconds"
)
_LOOKS = (
    "there is none: how often a candidate is scored follows from its length, and every step is in"
    " events.jsonl"
)
_TOTAL = "data.max_length is the whole row, prompt and answer together"
ABSENT: Mapping[str, str] = {
    word: said
    for words, said in {
        "warmup_steps num_warmup_steps": "training.warmup_ratio is the share of all steps, such as 0.06",
        "save_steps save_strategy save_total_limit save_every saves_per_epoch checkpoint_every"
        " steps_per_save": _BY_TIME,
        "eval_steps eval_strategy evaluation_strategy evals_per_epoch logging_steps logging_strategy"
        " log_every steps_per_eval steps_per_report": _LOOKS,
        "deepspeed fsdp num_processes nproc_per_node num_gpus n_gpu gpus gpu gpu_ids cuda device"
        " device_map accelerator local_rank cpu use_cpu no_cuda": _ONE_DEVICE,
        "lora": "there is no need: LoRA is all that is trained",
        "finetuning_type method stage adapter_type peft_method": (
            "there is no need: LoRA is all that is trained, on answers (SFT) or, with --task preference,"
            " on which of two is better"
        ),
        "dpo kto orpo simpo ipo rl_algo": (
            "there is none: rows with a rejected answer are trained on as preferences"
            " (--task preference), and preference.loss_type names the loss"
        ),
        "grpo ppo reward_model reward_funcs": (
            "there is none: nothing is learnt from rewards; make pairs of answers that were ranked, and"
            " --task preference learns from them, or --task reward a model that scores answers"
        ),
        "load_best_model_at_end": "there is no need: the best checkpoint is what is kept",
        "overwrite_output_dir overwrite force": (
            "there is none: a run is never overwritten; give it another --name"
        ),
        "push_to_hub hub_model_id hub_token": (
            "there is none: nothing is uploaded; best/ is a folder that huggingface-cli takes"
        ),
        "template chat_template conv_template": (
            "there is none: the chat template is that of the model's tokenizer"
        ),
        "num_workers dataloader_num_workers preprocessing_num_workers": (
            "there is no need: rows are encoded once, at the start"
        ),
        "group_by_length": "there is no need: rows are always grouped by length",
        "train_on_inputs train_on_prompt": (
            "there is none: only answers are learnt; a column text is learnt whole"
        ),
        "merge merge_adapter merge_and_unload": (
            "loraloom adapter merge does it after training; deploy.target=merged checks it first"
        ),
        "max_target_length max_prompt_length max_completion_length": _TOTAL,
        "num_beams top_p top_k repetition_penalty do_sample": (
            "there is none: --temperature alone says how a token is chosen"
        ),
        "num_labels num_classes": "there is no need: classes are those of the data",
        "per_device_eval_batch_size eval_batch_size": (
            "there is no need: scoring takes as many rows as fit"
        ),
        "quantization_bit bits": "model.quantization is nf4 or int8",
        "config_name tokenizer_name tokenizer tokenizer_name_or_path": (
            "there is none: the tokenizer is the model's own"
        ),
    }.items()
    for word in words.split()
}
"""Word of another tool -> what there is in its place, in words."""

VERBS: Mapping[str, str] = {
    word: verb
    for verb, words in {
        "train": "fine-tune finetune fit lora run sft start",
        "tune": "hpo hyperopt optimise optimize search study sweep",
        "evaluate": "eval score test validate benchmark",
        "predict": "classify infer inference label",
        "generate": "ask complete prompt try",
        "chat": "interact repl talk",
        "plan": "estimate explain preview recommend",
        "check": "doctor lint preflight verify",
        "runs": "history jobs list ls status",
        "compare": "diff leaderboard",
        "report": "html plot show view",
        "adapter merge": "merge fuse",
        "adapter export": "export convert quantize quantise gguf",
        "ship": "deploy",
        "adapter combine": "mergekit soup",
        "env": "info system version versions",
    }.items()
    for word in words.split()
}
"""Verb of another tool -> ours."""

_VALUES: Mapping[str, Mapping[str, str]] = {
    "task": {
        "causal_lm": "causal clm chat completion generation instruct instruction lm sft text_generation",
        "seq_cls": "classification cls sentiment sequence_classification text_classification",
        "seq2seq_lm": (
            "seq2seq seq_2_seq_lm summarisation summarization text2text text2text_generation translation"
        ),
        "preference": "cpo dpo ipo kto orpo preferences simpo",
        "reward": "reward_model reward_modeling rewards rm",
    },
    "goal": {"fastest": "fast speed", "memory": "small", "quality": "accuracy best"},
    names.DTYPE: {
        "bfloat16": "bf16 torch.bfloat16",
        "float16": "fp16 half torch.float16",
        "float32": "fp32 full torch.float32",
        "float64": "double fp64",
    },
    names.QUANTIZATION: {
        "nf4": "4 4bit bnb_4bit bnb_nf4 int4 qlora",
        "int8": "8 8bit bnb_8bit",
        "none": "16",
    },
    names.FORMAT: {
        "messages": "chat chatml conversational openai",
        "sharegpt": "share_gpt",
        "alpaca": "instruct instruction",
        "question_answer": "qa",
        "text": "completion pretrain raw",
        "text_label": "classification",
        "source_target": "translation",
        "preference": "dpo pairwise preferences ranked",
        "kto": "unpaired unpaired_preference",
    },
    names.TARGET_MODULES: {"all-linear": "all all_linear linear", "attention": "attn", "mlp": "ffn"},
    names.PRECISION: {
        "bf16": "bfloat16",
        "fp16": "float16 half",
        "fp32": "float32 full no",
        "fp64": "float64",
    },
    names.GRADIENT_CHECKPOINTING: {"offload": "activation_offloading host offloaded unsloth"},
    names.OPTIM: {
        "adamw": "adamw_hf adamw_torch adamw_torch_fused",
        "adamw_8bit": "adamw_bnb_8bit paged_adamw_8bit",
    },
    names.LR_SCHEDULER_TYPE: {"constant": "constant_with_warmup", "linear": "linear_with_warmup"},
    names.SAMPLER: {"gp": "bayes bayesian", "random": "random_search", "grid": "grid_search"},
    names.PRUNER: {"asha": "successive_halving sha", "none": "off"},
    names.TARGET: {
        "llama.cpp": "gguf llama_cpp llamacpp",
        "merged": "merge",
        "mlx": "mlx_lm",
        "sglang": "sgl",
    },
}


def plain(word: str) -> str:
    """A word of the command line or of a file as the tables have it: `--Learning-Rate`
    is learning_rate."""
    return word.lstrip("-").replace("-", "_").lower()


def squashed(word: str) -> str:
    """Letters and digits alone: `learningrate`, as some people write it."""
    return re.sub(r"[^a-z0-9]", "", word.lower())


VALUES: Mapping[str, Mapping[str, str]] = {
    key: {squashed(word): value for value, words in values.items() for word in (value, *words.split())}
    for key, values in _VALUES.items()
}
"""Key -> word of another tool, squashed -> our value of the same meaning."""
