"""`loraloom generate`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from loraloom.cli.request import FLAGS, Json, Verbose
from loraloom.errors import ConfigError

Prompts = Annotated[
    list[str] | None, typer.Argument(metavar="PROMPT", help="Prompts; without any, the lines of stdin.")
]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar=FLAGS["model"].takes, help="Base model; else the adapter's own."),
]
Adapters = Annotated[
    list[str] | None, typer.Option("--adapter", metavar="FOLDER", help="Adapter to try. Repeatable.")
]
MaxNewTokens = Annotated[
    int, typer.Option("--max-new-tokens", min=1, metavar="N", help="Longest answer.")
]
Temperature = Annotated[
    float,
    typer.Option("--temperature", min=0.0, metavar="X", help="0 always takes the likeliest token."),
]
System = Annotated[
    str | None, typer.Option("--system", metavar="TEXT", help="System message before each prompt.")
]
PromptsFile = Annotated[
    str | None,
    typer.Option(
        "--prompts", metavar="FILE", help="More prompts: one a line, or rows with prompts or messages."
    ),
]
Base = Annotated[bool, typer.Option("--base", help="Let the bare base answer too.")]


def generate(
    prompts: Prompts = None,
    prompts_file: PromptsFile = None,
    model: Model = None,
    adapter: Adapters = None,
    max_new_tokens: MaxNewTokens = 128,
    temperature: Temperature = 0.0,
    base: Base = False,
    system: System = None,
    json: Json = False,
    verbose: Verbose = False,
) -> list[dict[str, Any]]:
    """Let adapters and their base answer prompts."""
    if not model and not adapter:
        raise ConfigError(
            "neither an adapter nor a model was given",
            next="name one with --adapter or --model, or both",
        )
    asked: list[Any] = list(prompts or ())
    if prompts_file is not None:
        from loraloom.data.prompts import read_prompts

        found, notes = read_prompts(prompts_file)
        asked += found
        for note in notes:
            typer.echo(f"note: {note}", err=True)
    elif not asked:
        asked = _lines_of_stdin()
    if not asked:
        raise ConfigError(
            "there is no prompt",
            next='put one at the end: loraloom generate --adapter FOLDER "Once upon a time"',
        )

    from loraloom.cli.summary import show_answers
    from loraloom.facts.device import device_facts
    from loraloom.pipeline.generate import generate as run_generate

    answers = run_generate(model, adapter or [], asked, max_new_tokens, temperature, base, system)
    if notice := device_facts().notice:
        typer.echo(f"warning: {notice}", err=True)
    _say_forms({answer["source"]: answer["form"] for answer in answers if "probabilities" not in answer})
    show_answers(answers)
    return answers


def _say_forms(forms: Mapping[str, str | None]) -> None:
    """Say how prompts were written: once where it is the same for all sources."""
    from loraloom.data.form_template import in_form

    for form in dict.fromkeys(forms.values()):
        who = (
            ""
            if len(set(forms.values())) == 1
            else f" to {', '.join(source for source in forms if forms[source] == form)}"
        )
        if form is None:
            how = "as they are: there is neither a chat template nor a form of training"
        else:
            how = (
                "through the chat template"
                if form == "chat_template"
                else f"in the form of training: {in_form(form, '...')!r}"
            )
        typer.echo(f"note: prompts were sent{who} {how}", err=True)


def _lines_of_stdin() -> list[str]:
    return [] if sys.stdin.isatty() else [line.rstrip("\n") for line in sys.stdin if line.strip()]
