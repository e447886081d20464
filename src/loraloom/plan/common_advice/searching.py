"""How to look for better settings."""

from __future__ import annotations

from loraloom.plan.common_advice.item import TUNE, Subject, followed, overruled

SUBJECT = Subject(
    "Finding better settings",
    (
        followed(
            "Begin with standard defaults and adjust from there.",
            "The plan is the first candidate of every search.",
            "command plan",
            TUNE,
        ),
        followed(
            "No recipe fits all: the best settings differ by task and model.",
            "Rules read model, data and device; a search goes on from there.",
            "command plan",
            TUNE,
        ),
        followed(
            "Find the best settings by experiment.",
            "That is what tune does, many at a time.",
            TUNE,
        ),
        followed(
            "Change one setting at a time to see its effect.",
            "`search.sampler: one_factor`.",
            "setting search.sampler",
        ),
        followed(
            "A grid over r, alpha/r, rate and batch.",
            "`search.sampler: grid` with a `search.space` of your own.",
            "setting search.sampler",
            "setting search.space",
        ),
        followed(
            "Random or Bayesian search over few dimensions, coarse, with pruning.",
            "Sobol points, then a surface fitted to their first losses; a third goes on at each "
            "of two rungs.",
            "setting search.sampler",
            "setting search.pruner",
            TUNE,
        ),
        followed(
            "When unsure, start with a baseline.",
            "The plan's setting is the first candidate.",
            TUNE,
        ),
        followed(
            "Try it on part of the data.",
            "`data.max_rows` takes a seeded sample.",
            "setting data.max_rows",
        ),
        followed(
            "Plot training and validation loss.",
            "The report of a run draws both for each candidate.",
            TUNE,
        ),
        followed(
            "Keep logs, and repeat with several seeds.",
            "Events, metrics and curves are kept; finalists run over three seeds.",
            "setting search.seeds_for_finalists",
            "rule training.seed",
        ),
        overruled(
            "A table of six configurations in order of accuracy tells which is best.",
            "One seed and 872 rows: a difference has a standard error of 1.7 points, so most of "
            "the order is chance; finalists here run over several seeds.",
            "derived here (two shares of 872 rows)",
            "setting search.seeds_for_finalists",
        ),
    ),
)
