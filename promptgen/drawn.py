"""What a generator draws for each image by given shares, such as its class or its prompt.

It takes one more coordinate `u` of the latent, the last one, standard normal and independent of all others. The image
has the label `k` with ``F(k - 1) < Phi(u) <= F(k)``, where `F` sums the shares up to a label and `Phi` is the normal
distribution function. The prior is still Gaussian, so densities stay exact. An image is not continuous in `u`, so flows
leave `u` as it is and take it as a condition (`promptgen.flows.flow`): the shares are those given, whatever the flow.
So the latent of a chain tells what was drawn as that of its generator does, and it need not be read off the image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from promptgen.strict import summing_to_one

if TYPE_CHECKING:  # params.yaml is read without importing torch
    from torch import Tensor

CLASS, PROMPT = "class", "prompt"
"""Names of the attributes that are drawn."""

LOGIT = 40.0
"""Logit of what was drawn, the others being 0: the probability of another label is 4e-18."""


@dataclass(frozen=True)
class Drawn:
    """What a generator draws for each image, as an attribute.

    Attributes:
        name: name of the attribute.
        shares: share of each label, in the order of the quantiles; they sum to 1.

    Example:
        >>> import torch
        >>> drawn = Drawn("prompt", {"a builder": 0.5, "a nurse": 0.5})
        >>> drawn.indices(torch.tensor([[7.0, -1.0], [7.0, 1.0]])).tolist()
        [0, 1]
    """

    name: str
    shares: Mapping[str, float]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of the indices."""
        return tuple(self.shares)

    def indices(self, latent: Tensor) -> Tensor:
        """Return the index of the label, (B,) int64, of each latent of the generator, or of a chain on it, (B, D)."""
        return drawn_indices(latent.detach()[:, -1], self.shares.values())

    def logits(self, latent: Tensor) -> Tensor:
        """Return logits, (B, K), of what was drawn, as a classifier gives them that does not err."""
        import torch

        return LOGIT * torch.nn.functional.one_hot(self.indices(latent), len(self.shares)).to(latent)


def drawn_indices(u: Tensor, shares: Iterable[float]) -> Tensor:
    """Return the indices, (B,) int64, that coordinates `u`, (B,) standard normal, draw by the given shares.

    Example:
        >>> import torch
        >>> drawn_indices(torch.tensor([-1.0, 0.0, 1.0]), [0.25, 0.5, 0.25]).tolist()
        [0, 1, 2]
    """
    import torch

    bounds = torch.tensor(list(shares), dtype=torch.float64, device=u.device).cumsum(0)
    return torch.bucketize(torch.special.ndtr(u.double()), bounds[:-1])


def _several(shares: dict[str, float]) -> dict[str, float]:
    if len(shares) < 2:
        raise ValueError("shares are of several prompts: write a single one as `prompt`")
    return dict(sorted(shares.items()))  # a file on disk may sort them, and what is drawn depends on the order


PromptShares = Annotated[
    dict[Annotated[str, Field(min_length=1)], Annotated[float, Field(gt=0)]],
    AfterValidator(summing_to_one),
    AfterValidator(_several),
]
"""Share of images by prompt, of two prompts or more, in alphabetical order; the shares sum to 1."""

# Left out where there are none, so that a store of an earlier version stays of use.
SeveralPrompts = Annotated[PromptShares | None, Field(exclude_if=lambda shares: shares is None)]
"""The field of a section that holds them."""


def drawn_prompts(shares: Mapping[str, float] | None) -> Drawn | None:
    """Return the prompts as what a generator draws; None without shares."""
    return Drawn(PROMPT, dict(sorted(shares.items()))) if shares else None
