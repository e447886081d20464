"""The plain form of training as a chat template, for adapters over a base that has none.

What is asked of such an adapter has to stand in the form that it was trained in. So its tokenizer
carries the form along as a chat template, which transformers, vLLM and llama.cpp apply by themselves: a
user's turn becomes the prompt of the form, an assistant's the completion and its end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from loraloom.data.tokens import Tokenizer, document_end, frame_of, ids_of

FORMS: Mapping[str, tuple[str, str]] = {
    "alpaca": ("Instruction:\n", "\n\nOutput:\n"),
    "question_answer": ("Question:\n", "\n\nAnswer:\n"),
    "source_target": ("", "\n\n"),
    "prompt_completion": ("", ""),
}
"""What stands before and behind what is asked, by format of the rows."""
_MARK = "{{# the plain form of training: {} #}}"
_MARKED = re.compile(r"\{# the plain form of training: (\w+) #\}")
_PROBES = ("a", "What is 3 plus 4?", "Say:\n\tone  two ", "1. Größe, “quoted”")


def in_form(format: str, asked: str) -> str:
    """A prompt in the plain form of a format, up to its answer."""
    before, behind = FORMS[format]
    return f"{before}{asked}{behind}"


def asked_in(format: str, prompt: str) -> str | None:
    """What is asked in a prompt of the plain form of a format; None where the prompt is
    not written in it."""
    before, behind = FORMS[format]
    if not (prompt.startswith(before) and prompt.endswith(behind)):
        return None
    return prompt[len(before) : len(prompt) - len(behind)]


def stands_in(format: str, prompt: str) -> bool:
    """Whether a person has already written a prompt in the plain form of a format, all
    but white space at its end."""
    before, behind = FORMS[format]
    return (
        bool(before) and asked_in(format, prompt.rstrip() + behind[len(behind.rstrip()) :]) is not None
    )


def form_template(format: str, tokenizer: Tokenizer) -> str | None:
    """The chat template that writes this format as plain rows are written.

    None where there is no such form, or the tokenizer makes other tokens of the rendered text than of
    the rows: then the template would show the model what it was not trained on.
    """
    if format not in FORMS:
        return None
    frame = frame_of(tokenizer)
    opening, end = (_text(ids, tokenizer) for ids in (frame.opening, document_end(tokenizer, frame)))
    prompts = [in_form(format, probe) for probe in _PROBES]
    rows = [[*frame.opening, *ids] for ids in ids_of(prompts, tokenizer)]
    # some tokenizers begin a text with a space, but not what follows a special token
    for gap in ("", " "):
        if ids_of([opening + gap + prompt for prompt in prompts], tokenizer) == rows:
            return _template(format, opening + gap, end)
    return None


def form_of(template: object) -> str | None:
    """The format whose form a chat template writes, if `form_template` made it: rows
    for it are still plain rows."""
    found = _MARKED.match(template) if isinstance(template, str) else None
    return found[1] if found else None


def _template(format: str, opening: str, end: str) -> str:
    before, behind = FORMS[format]
    asked = " + ".join(
        [*([_quoted(before)] if before else []), "m['content']", *([_quoted(behind)] if behind else [])]
    )
    first = f"{{{{ {_quoted(opening)} }}}}" if opening else ""
    last = f"({_quoted(end)} if loop.last else {_quoted(chr(10) * 2)})"
    return (
        f"{_MARK.format(format)}{first}{{% for m in messages %}}"
        f"{{% if m['role'] == 'user' %}}{{{{ {asked} }}}}"
        f"{{% elif m['role'] == 'assistant' %}}{{{{ m['content'] + {last} }}}}"
        f"{{% else %}}{{{{ m['content'] + {_quoted(chr(10) * 2)} }}}}{{% endif %}}{{% endfor %}}"
    )


def _quoted(text: str) -> str:
    """A text as Jinja reads it."""
    return json.dumps(text, ensure_ascii=False)


def _text(ids: tuple[int, ...], tokenizer: Tokenizer) -> str:
    return (
        str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
        if ids
        else ""
    )
