"""What makes a shard of evaluations: the generator and whatever reads its images, here or in a worker."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from promptgen.energies.base import Sample
from promptgen.errors import ConfigError, NonFiniteEnergyError
from promptgen.generators.base import Generator
from promptgen.networks.devices import fetched, sent, wait_for
from promptgen.networks.micro_batches import MicroBatches
from promptgen.seeding import stream

Outputs = Mapping[str, Tensor]
"""Outputs by name, each (B, J)."""


@dataclass(frozen=True)
class Slope:
    """What to differentiate: ``direction . features(outputs)``, one number per record.

    Attributes:
        name: name of the features; equal names mean equal features.
        features: maps outputs to features, (B, J).
        direction: the combination of features that is differentiated, (N, J).
    """

    name: str
    features: Callable[[Outputs], Tensor]
    direction: Tensor

    def __getitem__(self, part: slice) -> Slope:
        return Slope(self.name, self.features, self.direction[part])


@dataclass(frozen=True)
class Request:
    """What is asked of a shard.

    Attributes:
        latent: latents of the base generator, (N, D).
        context: conditions, (N, C); None without a condition.
        slope: name of the features to differentiate; empty for no gradient.
        direction: the combination of features that is differentiated, (N, J); None for no gradient.
        names: names of the outputs to read.
        address: name of the shard.
    """

    latent: Tensor
    context: Tensor | None = None
    slope: str = ""
    direction: Tensor | None = None
    names: tuple[str, ...] = ()
    address: str = ""

    def __len__(self) -> int:
        return len(self.latent)

    def addressed(self) -> Request:
        """Return the same request with its address: the sha256 of latents, conditions and what to differentiate."""
        digest = hashlib.sha256()
        for tensor in (self.latent, self.context, self.direction):
            digest.update(f"{None if tensor is None else tuple(tensor.shape)}".encode())
            if tensor is not None:
                digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        digest.update(self.slope.encode())
        return replace(self, address=digest.hexdigest())

    def __getstate__(self) -> dict[str, Any]:
        """Return what a worker receives: tensors on the CPU, without the larger ones that they were cut from."""
        return {
            name: value.detach().cpu().clone() if isinstance(value, Tensor) else value
            for name, value in vars(self).items()
        }


@dataclass(frozen=True)
class Evaluator:
    """Makes the images of shards and reads them.

    Attributes:
        generator: the frozen base generator.
        outputs: functions from a batch to an output, (B, J), by the output's name.
        features: functions from outputs to features, (B, J), by the features' name; one of them may be differentiated.
        seed: seed of outputs that are random, such as augmentations.
        batches: how many images are made at a time.
    """

    generator: Generator
    outputs: Mapping[str, Callable[[Sample], Tensor]]
    features: Mapping[str, Callable[[Outputs], Tensor]] = field(default_factory=dict)
    seed: int = 0
    batches: MicroBatches = field(default_factory=MicroBatches)

    def __call__(self, request: Request) -> dict[str, Tensor]:
        """Return what a shard shows, on the CPU, by the names of its tensors.

        Raises:
            ConfigError: what is to be differentiated has no gradient.
            NonFiniteEnergyError: an output or its gradient is NaN or infinite.
        """
        device, direction = self.generator.prior.scale.device, request.direction
        latent = sent(request.latent, device)
        context = None if request.context is None else sent(request.context, device)
        slope = None if direction is None else sent(direction, device)
        # A stream for each output, so that it is the same whichever others are read with it.
        rngs = {name: stream(self.seed, "evaluations", request.address, name) for name in request.names}

        def evaluate(part: slice) -> dict[str, Tensor]:
            rows = {}
            point = latent[part].detach().clone().requires_grad_(direction is not None)
            with torch.set_grad_enabled(direction is not None):
                sample = Sample(point, self.generator(point), None if context is None else context[part])
                outputs = {name: self.outputs[name](replace(sample, rng=rng)) for name, rng in rngs.items()}
                if slope is not None:
                    value = (slope[part].to(point) * self.features[request.slope](outputs)).sum()
                    gradient = _gradient(value, point, request.slope)
                    rows["gradient"] = fetched(gradient)
            return rows | {output_key(name): fetched(output) for name, output in outputs.items()}

        def undo() -> Callable[[], None]:
            states = {name: rng.get_state() for name, rng in rngs.items()}

            def restore() -> None:
                for name, state in states.items():
                    rngs[name].set_state(state)

            return restore

        kind = "forward" if direction is None else "gradient"
        parts = self.batches.over(len(latent), evaluate, kind, undo)
        asked = {"latent": latent, "context": context, "direction": direction}
        wait_for(device)
        made = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        names = {output_key(name): name for name in request.names} | {"gradient": f"the gradient of {request.slope}"}
        for name, values in made.items():
            _require_finite(values, names[name])
        return {name: tensor.cpu() for name, tensor in asked.items() if tensor is not None} | made


def output_key(output: str) -> str:
    """Return the name of an output's tensor in a shard."""
    return f"output/{output}"


def _gradient(value: Tensor, point: Tensor, name: str) -> Tensor:
    gradient = torch.autograd.grad(value, point, allow_unused=True)[0] if value.requires_grad else None
    if gradient is None:
        raise ConfigError(
            f"torch cannot differentiate {name} with respect to the latent: set `gradient: none` for the model that "
            "reads the image"
        )
    return gradient


def _require_finite(values: Tensor, name: str) -> None:
    if not bool(values.isfinite().all()):
        raise NonFiniteEnergyError(f"{name} became NaN or infinite for an image: check the energy or the classifier")
