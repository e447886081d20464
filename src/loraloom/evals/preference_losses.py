"""What is formed of preferred answers: each loss as a pure function, named as in TRL.

Notation: y+ is the chosen answer, y- the rejected one, |y| its tokens, pi the candidate and ref what it
is held against; log pi(y) is the sum over the answer's tokens given the prompt, in nats. h is the
log-ratio log pi(y)/ref(y), and d the difference h(y+) - h(y-). All tensors are [N], one number a pair;
so are the losses, whose mean over a step's pairs is what is trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from loraloom.records import PreferenceLoss, PreferenceSpec


@dataclass(frozen=True)
class Answers:
    """One side of N pairs: log-probabilities in nats, under the candidate and under the reference, and
    the number of tokens."""

    logp: Tensor
    reference: Tensor
    tokens: Tensor

    @property
    def ratio(self) -> Tensor:
        """h."""
        return self.logp - self.reference

    @property
    def mean_logp(self) -> Tensor:
        """log pi(y) / |y|."""
        return self.logp / self.tokens


@dataclass(frozen=True)
class Compared:
    """N pairs. `nll`: negative log-likelihood of the chosen side, scaled so that its mean over a step's
    pairs is the mean over their tokens; of the answer's tokens, for `orpo` of the prompt's too."""

    chosen: Answers
    rejected: Answers
    nll: Tensor

    @property
    def difference(self) -> Tensor:
        """d."""
        return self.chosen.ratio - self.rejected.ratio

    @property
    def difference_per_token(self) -> Tensor:
        """h(y+)/|y+| - h(y-)/|y-|."""
        return self.chosen.ratio / self.chosen.tokens - self.rejected.ratio / self.rejected.tokens


def sigmoid(pairs: Compared, spec: PreferenceSpec) -> Tensor:
    """DPO: -log sigmoid(beta d) (Rafailov et al., arXiv:2305.18290, equation 7)."""
    return -F.logsigmoid(spec.beta * pairs.difference)


def robust(pairs: Compared, spec: PreferenceSpec) -> Tensor:
    """DPO where a share e of the pairs is swapped: ((1 - e) L(d) - e L(-d)) / (1 - 2e), whose mean is
    DPO's on pairs without noise (Chowdhury et al., arXiv:2403.00409, equation 12)."""
    e = spec.label_smoothing
    scaled = spec.beta * pairs.difference
    return (e * F.logsigmoid(-scaled) - (1 - e) * F.logsigmoid(scaled)) / (1 - 2 * e)


def ipo(pairs: Compared, spec: PreferenceSpec) -> Tensor:
    """(d - 1 / (2 tau))^2, with log-ratios a token as its authors do, and beta for tau (Azar et al.,
    arXiv:2310.12036, equation 17)."""
    return (pairs.difference_per_token - 1 / (2 * spec.beta)).square()


def sigmoid_norm(pairs: Compared, spec: PreferenceSpec) -> Tensor:
    """DPO with log-ratios a token (Lambert et al., arXiv:2411.15124, section 5.1.1)."""
    return -F.logsigmoid(spec.beta * pairs.difference_per_token)


def hinge(pairs: Compared, spec: PreferenceSpec) -> Tensor:
    """max(0, 1 - beta d) (Zhao et al., arXiv:2305.10425; Liu et al., arXiv:2309.06657)."""
    return torch.relu(1 - spec.beta * pairs.difference)


def sft(pairs: Compared, spec: PreferenceSpec) -> Tensor:
    """The chosen answer's own negative log-likelihood, to stand beside another loss (Pang et al.,
    arXiv:2404.19733)."""
    return pairs.nll


def orpo(pairs: Compared, spec: PreferenceSpec) -> Tensor:
    """NLL - beta log sigmoid(log odds(y+) - log odds(y-)), odds = p / (1 - p) of the geometric mean p of
    an answer's token probabilities (Hong et al., arXiv:2403.07691, equations 4 to 7)."""
    chosen, rejected = pairs.chosen.mean_logp, pairs.rejected.mean_logp
    odds = (chosen - rejected) - (log_one_minus_exp(chosen) - log_one_minus_exp(rejected))
    return pairs.nll - spec.beta * F.logsigmoid(odds)


def simpo(pairs: Compared, spec: PreferenceSpec) -> Tensor:
    """-log sigmoid(beta (log pi(y+)/|y+| - log pi(y-)/|y-|) - gamma) (Meng et al., arXiv:2405.14734,
    equation 6), and `cpo_alpha` times the NLL (CPO-SimPO)."""
    difference = pairs.chosen.mean_logp - pairs.rejected.mean_logp
    loss = -F.logsigmoid(spec.beta * difference - spec.simpo_gamma)
    return loss + spec.cpo_alpha * pairs.nll if spec.cpo_alpha else loss


PAIR_LOSSES: Mapping[PreferenceLoss, Callable[[Compared, PreferenceSpec], Tensor]] = {
    "sigmoid": sigmoid,
    "robust": robust,
    "ipo": ipo,
    "sigmoid_norm": sigmoid_norm,
    "hinge": hinge,
    "sft": sft,
    "orpo": orpo,
    "simpo": simpo,
}


def pair_loss(pairs: Compared, spec: PreferenceSpec) -> Tensor:
    """The sum of a candidate's losses, each times its weight."""
    weights = spec.loss_weights or (1.0,) * len(spec.loss_type)
    first, *rest = (
        weight * PAIR_LOSSES[name](pairs, spec)
        for name, weight in zip(spec.loss_type, weights, strict=True)
    )
    return sum(rest, first)


def kto(answers: Answers, good: Tensor, kl: Tensor | float, spec: PreferenceSpec) -> Tensor:
    """w+ (1 - sigmoid(beta (h - z0))) of a good answer, w- (1 - sigmoid(beta (z0 - h))) of a bad one
    (Ethayarajh et al., arXiv:2402.01306, equation 8).

    Args:
        good: bool [N].
        kl: z0, the estimated KL(pi || ref), at least 0: no gradient goes through it.
    """
    kind = good.to(answers.logp.dtype)
    sign = 2 * kind - 1
    weight = spec.desirable_weight * kind + spec.undesirable_weight * (1 - kind)
    return weight * torch.sigmoid(-sign * spec.beta * (answers.ratio - kl))


def log_one_minus_exp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) of x < 0, exact near 0 and far from it (Maechler, 2012, "Accurately computing
    log(1 - exp(-|a|))"). A probability that rounds to 1 is taken as the largest below it."""
    x = x.clamp(max=-torch.finfo(x.dtype).tiny)
    near = x > -0.6931471805599453
    # Both are formed of numbers that suit them: a gradient goes through what is not chosen too.
    by_expm1 = torch.log(-torch.expm1(torch.where(near, x, -1.0)))
    by_log1p = torch.log1p(-torch.exp(torch.where(near, -1.0, x)))
    return torch.where(near, by_expm1, by_log1p)
