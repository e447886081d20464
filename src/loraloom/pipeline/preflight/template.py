"""Is the model shown in training what it will be shown in use?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from loraloom.data.causal import framing_of, has_template, is_chat
from loraloom.data.chat import chat_rows, text_ids
from loraloom.data.encode import Row, encode
from loraloom.data.form_template import asked_in, form_template
from loraloom.data.forms import conversation, pair, source_and_target
from loraloom.data.preference_rows import tokenizer_of
from loraloom.data.render import Renderer
from loraloom.data.rows import IGNORED
from loraloom.data.sides import answers, as_completions, side
from loraloom.data.split import Splits
from loraloom.data.table import Table
from loraloom.errors import DataError
from loraloom.pipeline.preflight.result import CheckResult
from loraloom.pipeline.preflight.subject import Subject

NAME = "template"
SAMPLE = 64
"""Rows that are rendered once more, as a server would."""
SHOWN = 8
"""Tokens of a difference that the message quotes."""
SEAM_LIMIT = 0.05
"""Share of rows whose answer may begin inside a token of the prompt: an answer that
starts with white space can do that."""

SEAM = (
    (
        "white space ends the prompt and grows into the first token of the answer, which is then given"
        " and not learnt"
    ),
    "remove the white space at the end of the template's {% if add_generation_prompt %} part",
)
OTHER = (
    "the answer is learnt after a prompt that the model will not be shown",
    (
        "make the template's {% if add_generation_prompt %} part equal to what it writes before an"
        " assistant's turn"
    ),
)
"""Cause and cure where the texts are the same and only their tokens differ, and where
the texts differ."""


@dataclass(frozen=True)
class Prompt:
    """The beginning of a row up to what is learnt, and the same as it is made in use."""

    trained: list[int]
    served: list[int]
    ids: list[int]
    """The whole row."""


def inspect(subject: Subject) -> CheckResult:
    """Two BOS at the start of a row, or a prompt whose ids differ from those made in use, fails."""
    if subject.recognised.task == "reward":
        return CheckResult(NAME, "skipped", "a reward model is asked whole rows, as it was trained")
    if subject.recognised.task == "preference":
        subject = _of_one_side(subject)
    try:
        prompts = list(_prompts(subject))
    except DataError as error:
        return CheckResult(NAME, "skipped", f"no prompt could be made: {error.what}")
    if not prompts:
        return CheckResult(NAME, "skipped", "there is no prompt in these rows")
    bos = subject.tokenizer.bos_token_id
    twice = [one for one in prompts if bos is not None and one.ids[:2] == [bos, bos]]
    if twice:
        chat = _chat(subject)
        return CheckResult(
            NAME,
            "fail",
            f"rows begin with {subject.tokenizer.bos_token} twice",
            number=f"{len(twice)} of {len(prompts)} rows looked at",
            cause=(
                f"{'the chat template' if chat else 'the text itself'} writes it more than once; the"
                " model has never seen that, and quality drops without an error"
            ),
            command=(
                "remove one {{ bos_token }} from the chat template (chat_template.jinja or"
                " tokenizer_config.json)"
                if chat
                else f"remove {subject.tokenizer.bos_token} from the texts"
            ),
        )
    differing = [one for one in prompts if one.trained != one.served]
    if differing:
        return _differs(subject, differing, len(prompts))
    how = ", through the chat template" if _chat(subject) else ""
    what = f"prompts have the same tokens in training and in use{how}"
    return CheckResult(NAME, "ok", what, number=f"{len(prompts)} rows looked at")


def _of_one_side(subject: Subject) -> Subject:
    """The first answers of preferences, as rows of prompt and completion: the others have the same
    prompts."""
    read = subject.recognised
    train = subject.splits.train
    return replace(
        subject,
        splits=Splits(side(train, read, answers(read)[0])),
        recognised=as_completions(read),
        tokenizer=tokenizer_of(train, read, subject.tokenizer),
    )


def _differs(subject: Subject, differing: Sequence[Prompt], looked_at: int) -> CheckResult:
    share = len(differing) / looked_at
    one = differing[0]
    at = _parting(one.trained, one.served)
    trained, served = (
        str(subject.tokenizer.decode(ids[at : at + SHOWN])) for ids in (one.ids, one.served)
    )
    seam = str(subject.tokenizer.decode(one.ids)).startswith(
        str(subject.tokenizer.decode(one.served)).rstrip()
    )
    cause, command = SEAM if seam else OTHER
    return CheckResult(
        NAME,
        "fail" if share > SEAM_LIMIT else "warn",
        "prompts have other tokens in training than in use",
        number=(
            f"{len(differing)} of {looked_at} rows, first at token {at}: {trained!r} trained, {served!r}"
            " in use"
        ),
        cause=cause,
        command=command,
    )


def _parting(trained: Sequence[int], served: Sequence[int]) -> int:
    """The first place at which two prompts differ."""
    differing = (i for i, (a, b) in enumerate(zip(trained, served, strict=False)) if a != b)
    return next(differing, min(len(trained), len(served)))


def _prompts(subject: Subject) -> Iterator[Prompt]:
    table = subject.splits.train
    table = table.take(range(min(SAMPLE, len(table))))
    for index in range(len(table)):
        yield from (
            _conversation(subject, table, index)
            if _chat(subject)
            else _plain(subject, table.take([index]))
        )


def _chat(subject: Subject) -> bool:
    task = subject.recognised.task
    form = subject.recognised.format
    return (
        task == "causal_lm"
        and form != "text"
        and is_chat(subject.splits.train, subject.recognised, subject.tokenizer)
    )


def _conversation(subject: Subject, table: Table, index: int) -> Iterator[Prompt]:
    """A row of a whole conversation begins with the prompt of its first answer; a row
    an answer, with that answer's."""
    renderer = Renderer(subject.tokenizer, subject.recognised.system)
    talk = conversation(table.rows[index], subject.recognised)
    fitted = renderer.fit(talk)
    for row, answer in zip(
        chat_rows([(table.origin(index), talk)], renderer), fitted.answers, strict=False
    ):
        if row.supervised:
            yield _prompt(row, renderer.ids(fitted, end=answer), _first(row))


def _plain(subject: Subject, table: Table) -> Iterator[Prompt]:
    """Rows that no template renders: what the tokenizer makes of the input alone."""
    try:
        encoded = encode(Splits(table), subject.recognised, subject.tokenizer, subject.recognised.task)
        row = encoded.train[0].sides[0]
    except DataError:  # a row without anything to learn is told of by another check
        return
    form = subject.recognised.format
    columns = subject.recognised.columns
    source = table.rows[0]
    if subject.recognised.task != "causal_lm":
        text = (
            source[columns["text"]]
            if subject.recognised.task == "seq_cls"
            else source_and_target(source, form, columns)[0]
        )
        yield _prompt(row, _framed(text, subject.tokenizer), len(row))
    elif form == "text":
        framing = framing_of(subject.tokenizer)
        served = _framed(framing.unclosed(framing.unopened(source[columns["text"]])), subject.tokenizer)
        yield _prompt(row, served, len(served))
    else:
        prompt = framing_of(subject.tokenizer).unopened(pair(source, subject.recognised)[0])
        yield _prompt(row, _in_use(prompt, form, subject.tokenizer), _first(row))


def _in_use(prompt: str, form: str, tokenizer: Any) -> list[int]:
    """What is sent for a plain prompt: its question through the template that goes along with the
    adapter, else the prompt."""
    asked = None if has_template(tokenizer) else asked_in(form, prompt)
    template = form_template(form, tokenizer) if asked is not None else None
    if template is None:
        return text_ids(prompt, tokenizer, continued=True)
    turns = [{"role": "user", "content": asked}]
    found = tokenizer.apply_chat_template(
        turns, chat_template=template, add_generation_prompt=True, tokenize=True, return_dict=True
    )
    return list(found["input_ids"])


def _framed(text: str, tokenizer: Any) -> list[int]:
    return list(tokenizer([text])["input_ids"][0])


def _first(row: Row) -> int:
    return int((row.labels != IGNORED).argmax())


def _prompt(row: Row, served: list[int], given: int) -> Prompt:
    ids = row.input_ids.tolist()
    return Prompt(ids[:given], served, ids)
