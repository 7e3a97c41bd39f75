"""Output distribution of NVAE's decoder: the colour of every pixel.

Most models use a mixture of discretised logistics, in which green depends linearly on red, and blue on red and green
(Salimans, Karpathy, Chen, Kingma, "PixelCNN++", ICLR 2017, https://arxiv.org/abs/1701.05517); some use one Gaussian.
An independent implementation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST_LOG_SCALE = -7.0
SMALLEST_UNIFORM = 1e-5


@dataclass(frozen=True)
class Mixture:
    """Mixtures of M logistics over colours in [-1, 1].

    Attributes:
        logits: logits of the components, (B, M, H, W).
        means: means of the components, (B, 3, M, H, W).
        log_scales: logarithms of the components' scales, (B, 3, M, H, W).
        coefficients: coefficients of red in green, red in blue, and green in blue, (B, 3, M, H, W).
    """

    logits: Tensor
    means: Tensor
    log_scales: Tensor
    coefficients: Tensor

    @classmethod
    def parse(cls, output: Tensor, components: int) -> Mixture:
        """Split a decoder's output, (B, 10 M, H, W) with M = `components`, into the parameters of the mixture."""
        logits, colours = output[:, :components], output[:, components:].unflatten(1, (3, 3, components))  # type: ignore[no-untyped-call]
        means, log_scales, coefficients = colours.unbind(dim=2)
        return cls(logits, means, log_scales.clamp(min=SMALLEST_LOG_SCALE), coefficients.tanh())

    def mean_image(self) -> Tensor:
        """Return an image, (B, 3, H, W), nominally in [0, 1]: means and coefficients averaged over the components."""
        weights = self.logits.softmax(dim=1)[:, None]
        return _image((weights * self.means).sum(dim=2), (weights * self.coefficients).sum(dim=2))

    def draw(self, component_noise: Tensor, pixel_noise: Tensor) -> Tensor:
        """Return an image, (B, 3, H, W), nominally in [0, 1], from uniform noise.

        Args:
            component_noise: noise that selects each pixel's component, (B, M, H, W), in [0, 1].
            pixel_noise: noise of the colour within the component, (B, 3, H, W), in [0, 1].
        """
        gumbel = -torch.log(-torch.log(_inside(component_noise)))
        chosen = (self.logits + gumbel).argmax(dim=1)[:, None, None].expand(-1, 3, -1, -1, -1)
        means, log_scales, coefficients = (
            values.gather(2, chosen).squeeze(2) for values in (self.means, self.log_scales, self.coefficients)
        )
        return _image(means + log_scales.exp() * torch.logit(_inside(pixel_noise)), coefficients)


def mean_image(output: Tensor, components: int) -> Tensor:
    """Return the mean image, (B, 3, H, W), of a decoder's output; nominally in [0, 1] and not clamped.

    Unlike a draw from the distribution, the mean is a differentiable function of the latents.

    Args:
        output: decoder output, (B, 10 M, H, W) for M > 1 components, (B, 6, H, W) for a single Gaussian.
        components: number of components M.
    """
    if components > 1:
        return Mixture.parse(output, components).mean_image()
    return (soft_clamp(output[:, :3]) + 1) / 2


def soft_clamp(x: Tensor) -> Tensor:
    """Return ``5 tanh(x / 5)``, which bounds means and log-deviations in the published network."""
    return 5 * torch.tanh(x / 5)


def _image(x: Tensor, coefficients: Tensor) -> Tensor:
    """Add each colour's dependence on the earlier colours to x, (B, 3, H, W); map [-1, 1] to [0, 1].

    As in the published network, a colour is clamped where another colour depends on it. The result is not clamped, so
    that the gradient of a pixel out of range does not vanish; clamping it gives the published image exactly.
    """
    first, second, third = coefficients.unbind(dim=1)
    red = x[:, 0]
    green = x[:, 1] + first * red.clamp(-1, 1)
    blue = x[:, 2] + second * red.clamp(-1, 1) + third * green.clamp(-1, 1)
    return (torch.stack([red, green, blue], dim=1) + 1) / 2


def _inside(uniform: Tensor) -> Tensor:
    """Map [0, 1] into its interior, where the logarithms are finite."""
    return SMALLEST_UNIFORM + (1 - 2 * SMALLEST_UNIFORM) * uniform
