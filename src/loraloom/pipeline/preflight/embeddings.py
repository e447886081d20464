"""Does the model have a row for every token, and is every new part of it saved?"""

from __future__ import annotations

from loraloom.facts.meta_model import AUTO_CLASSES
from loraloom.facts.source import load_config, model_folder
from loraloom.facts.weights import find_weights
from loraloom.pipeline.preflight.result import CheckResult
from loraloom.pipeline.preflight.subject import Subject

NAME = "embeddings"


def inspect(subject: Subject) -> CheckResult:
    """A tokenizer with more ids than the embedding has rows fails, and a new head that
    is neither trained nor saved."""
    model = subject.facts.model
    ids = max(subject.tokenizer.get_vocab().values(), default=-1) + 1
    if 0 < model.vocab_size < ids:
        return CheckResult(
            NAME,
            "fail",
            f"the tokenizer has {ids:,} tokens, the embedding {model.vocab_size:,} rows",
            number=f"{ids - model.vocab_size:,} tokens without a row",
            cause=(
                "tokens were added and the model was not resized: such a token would be looked up"
                " outside of the table"
            ),
            command=_resize(model.name_or_path, AUTO_CLASSES[model.task]),
        )
    saved = subject.plan.settings.modules_to_save
    unsaved = [
        head
        for head in model.head_modules
        if not any(head == one or head.startswith(f"{one}.") for one in saved)
    ]
    new = [head for head in unsaved if _is_new(subject, head)]
    if new:
        return CheckResult(
            NAME,
            "fail",
            f"the new head {', '.join(new)} would be neither trained nor saved",
            number=f"{len(new)} of {len(model.head_modules)} heads",
            cause=(
                "the weights do not hold it: it starts from noise, stays noise, and is another one after"
                " the next load"
            ),
            command=f"--set adapter.modules_to_save=[{', '.join(model.head_modules)}]",
        )
    heads = (
        f"; {', '.join(model.head_modules)} is saved with the adapter"
        if model.head_modules and not unsaved
        else ""
    )
    return CheckResult(
        NAME, "ok", f"every token has a row{heads}", number=f"{ids:,} tokens, {model.vocab_size:,} rows"
    )


def _is_new(subject: Subject, head: str) -> bool:
    """Whether a head starts from noise: the weights lack it, or have it for another
    number of classes."""
    model = subject.facts.model
    names = subject.data.label_names if subject.data else None
    folder = model_folder(model.name_or_path, model.revision)
    stored = find_weights(folder).names if folder else None
    if stored is not None and not any(name == head or name.startswith(f"{head}.") for name in stored):
        return True
    asked = subject.config.model
    own = load_config(
        model.name_or_path, revision=asked.revision, trust_remote_code=asked.trust_remote_code
    )
    return names is not None and own.num_labels != len(names)


def _resize(name: str, auto: str) -> str:
    return (
        f'python -c "from transformers import AutoTokenizer, {auto}; t ='
        f" AutoTokenizer.from_pretrained('{name}'); m = {auto}.from_pretrained('{name}');"
        " m.resize_token_embeddings(len(t)); m.save_pretrained('resized');"
        " t.save_pretrained('resized')\" && loraloom check --model resized ..."
    )
