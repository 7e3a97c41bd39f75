"""How the reference fits its multipliers: Adam on a squared error, step by step. Only to be compared with."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Optimiser:
    """Adam whose epsilon is not corrected for bias, with a rate that falls linearly to zero."""

    steps: int
    schedule_steps: int
    rate: float
    clip: float = 1.0
    decay: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8

    def path(self, features):
        """Return the multipliers after each step, (steps, K), and the loss before it, (steps,).

        `features` holds the class probabilities, (B, K_a), of each attribute that is fitted.
        """
        sizes = [gamma.shape[1] for gamma in features]
        beta = torch.zeros(sum(sizes))
        mean, square = torch.zeros_like(beta), torch.zeros_like(beta)
        b1, b2 = self.decay
        visited, losses = [], []
        for step in range(self.steps):
            value, gradient = loss_and_gradient(features, beta)
            gradient = gradient * min(1.0, self.clip / (float(gradient.norm()) + 1e-6))
            mean = b1 * mean + (1 - b1) * gradient
            square = b2 * square + (1 - b2) * gradient**2
            correction = (1 - b2 ** (step + 1)) ** 0.5 / (1 - b1 ** (step + 1))
            rate = self.rate * (self.schedule_steps - step) / self.schedule_steps
            beta = beta - rate * correction * mean / (square.sqrt() + self.epsilon)
            visited.append(beta)
            losses.append(value)
        return torch.stack(visited), torch.stack(losses)


def tilted_mean(gamma, beta):
    """Return the mean, (K,), of class probabilities, (B, K), under the weights exp(beta . gamma)."""
    return (gamma @ beta).softmax(dim=0) @ gamma


def loss_and_gradient(features, beta):
    """Return the squared distance from uniform shares, summed over attributes, and its gradient, (K,)."""
    beta = beta.clone().requires_grad_()
    parts = beta.split([gamma.shape[1] for gamma in features])
    means = [tilted_mean(gamma, part) for gamma, part in zip(features, parts, strict=True)]
    loss = sum((mean - 1 / len(mean)).square().sum() for mean in means)
    return loss.detach(), torch.autograd.grad(loss, beta)[0]
