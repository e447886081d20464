"""Linear layers as facts: where each sits in its model, and how large it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from loraloom.lora.targets import Role

MLP_PARTS = frozenset(
    {
        "mlp",
        "ffn",
        "feed_forward",
        "feedforward",
        "densereludense",
        "intermediate",
        "output",
        "ffn_output",
    }
)
MLP_LEAVES = frozenset(
    {"fc1", "fc2", "fc_in", "fc_out", "lin1", "lin2", "dense_h_to_4h", "dense_4h_to_h"}
)


@dataclass(frozen=True)
class LinearFact:
    """One linear layer.

    Attributes:
        why: the reason for the role "frozen".
        takes_codes: whether quantising the base holds its weight in few bits. Layers outside the
            blocks stay as they are.
    """

    path: str
    in_features: int
    out_features: int
    role: Role
    why: str = ""
    takes_codes: bool = True

    @property
    def name(self) -> str:
        """The last part of the path: "q_proj"."""
        return self.path.rpartition(".")[2]

    @property
    def parameters(self) -> int:
        """Numbers in the weight, without the bias."""
        return self.in_features * self.out_features


def role_of(path: str) -> Role:
    """Attention or MLP, told from the words in a module's path; "other" where neither
    shows (a pooler)."""
    *parents, leaf = path.lower().split(".")
    if any("attn" in part or "attention" in part for part in parents):
        return "attention"
    if MLP_PARTS & {*parents, leaf} or leaf in MLP_LEAVES:
        return "mlp"
    return "other"


def is_expert(path: str) -> bool:
    """Whether a module or parameter belongs to the experts that a router chooses from;
    a shared expert is not chosen."""
    return any(
        "expert" in part and "shared" not in part and "gate" not in part
        for part in path.lower().split(".")
    )


def frozen_because(path: str, out_features: int, experts: int) -> str:
    """Why a layer of a mixture takes no adapter; empty for all others."""
    if not experts:
        return ""
    *parents, leaf = path.lower().split(".")
    if "router" in (*parents, leaf) or (leaf == "gate" and out_features == experts):
        return (
            "a router, which sends each token to its experts: trained alone, it leaves some of them idle"
        )
    if is_expert(path):
        return (
            "an expert, which sees the tokens that a router sends it and not the rows of one candidate"
        )
    return ""


def left_out(linears: Iterable[LinearFact], experts: int) -> tuple[str, ...]:
    """A sentence for each reason for which layers take no adapter, beside a mixture's experts and
    router, with their names."""
    by_reason: dict[str, list[str]] = {}
    for one in linears:
        if one.role == "frozen" and not frozen_because(one.path, one.out_features, experts):
            by_reason.setdefault(one.why, []).append(one.name)
    return tuple(
        f"{len(names)} linear layers ({', '.join(dict.fromkeys(names))}) take no adapter: {why}"
        for why, names in by_reason.items()
    )
