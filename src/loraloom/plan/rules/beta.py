"""How closely a candidate is kept to its reference while it learns to prefer."""

from __future__ import annotations

from loraloom.config import names
from loraloom.plan.about import About
from loraloom.plan.case import Case
from loraloom.records import Advice

KEY = names.BETA
ABOUT = About(
    does=(
        "How closely a candidate is kept to its reference: large is close. Of `ipo` it is tau, of"
        " `simpo` the scale of the reward, of `orpo` the weight of the odds ratio."
    ),
    rule="0.1; 2 for `simpo`. A search tries a tenth to five times that.",
    evidence=(
        "0.1 is DPO's own (arXiv:2305.18290); Zephyr took 0.01 (arXiv:2310.16944). With a beta too small"
        " both answers become unlikely: at a rate of 5e-4 the chosen one lost 17 nats at 0.01, 10 at 0.1"
        " and 3.5 at 0.5, with as many pairs right. SimPO's is 2 to 2.5 (arXiv:2405.14734)."
    ),
    tools={"TRL": "0.1"},
)
USUAL = 0.1
SIMPO = 2.0
REACH = (0.1, 5.0)


def advise(case: Case) -> Advice:
    simpo = "simpo" in case.decided[names.LOSS_TYPE].value
    value = SIMPO if simpo else USUAL
    low, high = (value * factor for factor in REACH)
    reason = "the margin is of log-likelihoods a token" if simpo else "keeps to the reference as DPO did"
    source = "arXiv:2405.14734" if simpo else "arXiv:2305.18290"
    return Advice(value, reason, source, (low, high), "B")
