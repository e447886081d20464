"""`loraloom recall ask`: the answer with the memory, without it, and by retrieval, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from loraloom.errors import RequestError
from loraloom.pipeline.device_errors import device_errors
from loraloom.pipeline.recall.bench import CURRENT, MemoryBench, Watch
from loraloom.pipeline.recall.keys import Keys
from loraloom.pipeline.recall.routes import answer_room
from loraloom.recall.forms import Form
from loraloom.recall.memory import opened
from loraloom.recall.places import maps_of
from loraloom.recall.router import Route, Router


@dataclass(frozen=True)
class Found:
    """What retrieval put into the prompt.

    Attributes:
        nearness: cosine of its key to the question's, plus cosine of their words.
    """

    item: str
    question: str
    answer: str
    nearness: float


@dataclass(frozen=True)
class Answer:
    """One question, answered in up to three ways.

    Attributes:
        memory: by the adapters, with nothing in the prompt; by the base where the router does not find
            the question in the memory; None where neither was asked.
        base: by the bare base.
        retrieval: by the bare base with the nearest item in its prompt; None where it was not asked.
        route: what the router decided; None where it was not asked.
    """

    question: str
    memory: str | None
    base: str
    retrieval: str | None
    found: Found | None
    route: Route | None = None


@device_errors()
def ask(
    folder: Path, questions: list[str], watch: Watch, *, off: bool = False, route: bool = True
) -> list[Answer]:
    """Answer questions; every answer is written freely, always taking the likeliest token.

    Args:
        off: by the bare base alone.
        route: what is nowhere in the memory is answered by the bare base, as without one.

    Raises:
        RequestError: there is no question, or no memory.
    """
    asked = [question.strip() for question in questions if question.strip()]
    if not asked:
        raise RequestError("nothing was asked", next=f'loraloom recall ask {folder} "Where is it?"')
    with opened(folder) as memory:
        bench = MemoryBench(memory, [Form("", question, "It is.") for question in asked], watch)
        most = answer_room(bench, maps_of(entry.item for entry in memory.state.kept))
        base = bench.answers(asked, None, most=most)
        if off:
            return [Answer(one, None, text, None, None) for one, text in zip(asked, base, strict=True)]
        router = Router.of(memory.state) if route else None
        routes = [router.route(one) if router else None for one in asked]
        told = list(base)
        with bench.seated({CURRENT: bench.total}) as trials:
            for place, way in enumerate(routes):
                if trials and (way is None or way.remembered):
                    (told[place],) = bench.answers([asked[place]], trials[0], most=most)
        found = _found(bench, asked)
        prompts = [
            f"{one.question} {one.answer}\n{question}" if one else question
            for question, one in zip(asked, found, strict=True)
        ]
        retrieved = bench.answers(prompts, None, most=most) if any(found) else [None] * len(asked)
        return [Answer(*one) for one in zip(asked, told, base, retrieved, found, routes, strict=True)]


def _found(bench: MemoryBench, questions: list[str]) -> list[Found | None]:
    """The stored item whose question is nearest to each question."""
    items = [entry.item for entry in bench.memory.state.kept]
    if not items:
        return [None] * len(questions)
    keys = Keys(bench, items)
    found: list[Found | None] = []
    for near_N in keys.nearness(questions):
        place = int(near_N.argmax())
        item = items[place]
        found.append(Found(item.id, item.question, item.answer, float(near_N[place])))
    bench.states.keep()
    return found
