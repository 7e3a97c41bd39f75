"""The store of evaluations: one record per image, addressed by the latent of the base generator.

Control is paid for in images. Each image is therefore evaluated once and its record is kept: the latent, the condition,
every *output* (an energy without its weight, a classifier's log-probabilities), and for some records the gradient of a
combination of the outputs. All passes of a chain share a store, because the density of every pass is known in the base
generator's latent space. A new weight, target or multiplier needs new arithmetic, not new images.

Records lie in shards. The name of a shard is the sha256 of what was asked for, so equal requests share a shard whoever
asks, a killed run loses at most the shard it was making, and a store changes only how long a computation takes, never
its result.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from promptgen.energies.base import Sample
from promptgen.errors import ConfigError, DataError, NonFiniteEnergyError
from promptgen.evaluations.config import FORWARD_UNITS, GRADIENT_UNITS, IDENTITY_NAME, SHARD_SIZE
from promptgen.files import atomic_write, read_json, write_json
from promptgen.generators.base import Generator
from promptgen.seeding import stream

logger = logging.getLogger("promptgen")

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
class Evaluations:
    """Records of N images.

    Attributes:
        latent: latents of the base generator, (N, D).
        context: conditions, (N, C); None without a condition.
        outputs: the outputs by name, each (N, J).
        addresses: names of the shards that hold the records, in order.
        slope_name: name of the features whose combination was differentiated; None without gradients.
        direction: the combination, (N, J); None without gradients.
        gradient: its gradient with respect to the latent, (N, D); None without gradients.
    """

    latent: Tensor
    context: Tensor | None
    outputs: Outputs
    addresses: tuple[str, ...] = ()
    slope_name: str | None = None
    direction: Tensor | None = None
    gradient: Tensor | None = None

    def __len__(self) -> int:
        return len(self.latent)


@dataclass
class Spending:
    """Images that a user of the store has caused.

    Attributes:
        forward: images made for this user, in this process or an earlier one.
        backward: those of them that were differentiated.
        shared: records that another user of the store had made before.
        cached: records that were in the store when they were asked for, whoever made them.
    """

    forward: int = 0
    backward: int = 0
    shared: int = 0
    cached: int = 0

    @property
    def units(self) -> int:
        """Cost of the images, in forward passes."""
        return FORWARD_UNITS * self.forward + (GRADIENT_UNITS - FORWARD_UNITS) * self.backward

    @property
    def asked(self) -> int:
        """Number of records that were asked for."""
        return self.forward + self.shared


@dataclass
class EvaluationStore:
    """Evaluates latents of one generator and keeps the records.

    Args:
        generator: the frozen base generator.
        outputs: functions from a batch to an output, (B, J), by a name that changes with everything the output
            depends on.
        folder: where the shards lie; None keeps nothing.
        identity: what the generator is, such as the sha256 of its weights. A folder of another one is refused.
        user: name of the step that evaluates, to tell its own images from those of others.
        seed: seed of outputs that are random, such as augmentations.
        batch: images at a time.

    Raises:
        DataError: the folder belongs to another generator.
    """

    generator: Generator
    outputs: Mapping[str, Callable[[Sample], Tensor]]
    folder: Path | None = None
    identity: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    seed: int = 0
    batch: int = 16
    spending: Spending = field(default_factory=Spending)

    def __post_init__(self) -> None:
        if self.folder is None:
            return
        path, expected = self.folder / IDENTITY_NAME, dict(self.identity)
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(path, expected)
        elif (kept := read_json(path)) != expected:
            names = sorted(name for name in {*kept, *expected} if kept.get(name) != expected.get(name))
            raise DataError(
                f"{self.folder} holds evaluations of another generator (different: {', '.join(names)}): "
                "move the folder away"
            )

    def evaluate(
        self,
        latent: Tensor,
        context: Tensor | None = None,
        *,
        slope: Slope | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Evaluations:
        """Return the records of latents, (N, D), under conditions, (N, C); those in the store are not made again.

        Args:
            latent: latents of the base generator.
            context: conditions that outputs may read; None without a condition.
            slope: what to differentiate; None evaluates without gradients.
            progress: called with the number of finished records after every shard.

        Raises:
            ConfigError: what is to be differentiated has no gradient.
            NonFiniteEnergyError: an output or its gradient is NaN or infinite.
            StorageError: a shard cannot be written.
        """
        shards = []
        for start in range(0, len(latent), SHARD_SIZE):
            part = slice(start, start + SHARD_SIZE)
            request = _Request(
                latent[part], None if context is None else context[part], None if slope is None else slope[part]
            )
            shards.append(self._shard(request, request.address))
            if progress:
                progress(min(part.stop, len(latent)))
        return _join(shards, latent)

    def measure(self, latent: Tensor, context: Tensor | None = None) -> None:
        """Make the images of latents and read them, but keep nothing, to see how long it takes."""
        self._make(_Request(latent, context, None), "", list(self.outputs), None)

    def load(self, addresses: Iterable[str], like: Tensor) -> list[Evaluations]:
        """Return shards that were written before; outputs that they lack are evaluated and added.

        Args:
            addresses: their names.
            like: a tensor with the device and floating-point type of the result.

        Raises:
            DataError: a shard is not there.
            NonFiniteEnergyError: an output is NaN or infinite.
        """
        loaded = []
        for address in addresses:
            tensors, _ = _read(self._path(address))
            if "latent" not in tensors:
                raise DataError(
                    f"the evaluations {address[:12]} are missing in {self.folder}: remove the pass that made them, "
                    "and the same command makes them again"
                )
            context = tensors.get("context")
            request = _Request(tensors["latent"].to(like), None if context is None else context.to(like), None)
            loaded.append(_join([self._shard(request, address)], like))
        return loaded

    def _path(self, address: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{address}.safetensors"

    def _shard(self, request: _Request, address: str) -> _Shard:
        """Return a shard; whatever the store lacks of it is evaluated and written."""
        path, spending, count = self._path(address), self.spending, len(request.latent)
        tensors, about = _read(path)
        missing = [name for name in self.outputs if _key(name) not in tensors]
        slope = None if "gradient" in tensors else request.slope
        complete = not missing and slope is None
        if not complete:
            fresh = not tensors
            tensors |= self._make(request, address, missing, slope)
            about = _About(self.user, slope.name if slope else "") if fresh else about.with_addition(self.user)
            if path is not None:
                atomic_write(
                    path, save({name: value.contiguous() for name, value in tensors.items()}, {"about": about.text})
                )
        made, added = about.maker == self.user, about.added.count(self.user)
        spending.cached += count * complete
        spending.shared += count * (not made and not added)
        spending.forward += count * (made + added)
        spending.backward += count * (made and "gradient" in tensors)
        outputs = {name: tensors[_key(name)] for name in self.outputs}
        return _Shard(address, tensors, outputs, about.slope)

    def _make(self, request: _Request, address: str, names: Sequence[str], slope: Slope | None) -> dict[str, Tensor]:
        """Make the images of a shard and return what they show, on the CPU, by the names of a shard's tensors."""
        latent, context = request.latent, request.context
        # A stream for each output, so that it is the same whichever others are read with it.
        chosen = {name: (self.outputs[name], stream(self.seed, "evaluations", address, name)) for name in names}
        rows: dict[str, list[Tensor]] = {"latent": [latent.cpu()]}
        if context is not None:
            rows["context"] = [context.cpu()]
        if slope is not None:
            rows["direction"] = [slope.direction.cpu()]
        for start in range(0, len(latent), self.batch):
            part = slice(start, start + self.batch)
            point = latent[part].detach().clone().requires_grad_(slope is not None)
            with torch.set_grad_enabled(slope is not None):
                sample = Sample(point, self.generator(point), None if context is None else context[part])
                outputs = {name: output(replace(sample, rng=rng)) for name, (output, rng) in chosen.items()}
                if slope is not None:
                    value = (slope.direction[part].to(point) * slope.features(outputs)).sum()
                    gradient = _gradient(value, point, slope.name)
                    rows.setdefault("gradient", []).append(_finite(gradient, f"the gradient of {slope.name}"))
            for name, output in outputs.items():
                rows.setdefault(_key(name), []).append(_finite(output, name))
        return {name: torch.cat(values) for name, values in rows.items()}


@dataclass(frozen=True)
class _Request:
    """What is asked of a shard."""

    latent: Tensor
    context: Tensor | None
    slope: Slope | None

    @property
    def address(self) -> str:
        """Name of the shard: the sha256 of the request."""
        digest = hashlib.sha256()
        for tensor in (self.latent, self.context, self.slope.direction if self.slope else None):
            digest.update(f"{None if tensor is None else tuple(tensor.shape)}".encode())
            if tensor is not None:
                digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        digest.update((self.slope.name if self.slope else "").encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class _About:
    """What is known of a shard besides its tensors.

    Attributes:
        maker: who made its images first.
        slope: name of the features whose combination was differentiated; empty without gradients.
        added: who made its images again, each time, to read outputs that it lacked.
    """

    maker: str = ""
    slope: str = ""
    added: tuple[str, ...] = ()

    def with_addition(self, user: str) -> _About:
        return replace(self, added=(*self.added, user))

    @property
    def text(self) -> str:
        """One string, since safetensors writes the keys of its metadata in a random order."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class _Shard:
    """A shard, on the CPU."""

    address: str
    tensors: Mapping[str, Tensor]
    outputs: Outputs
    slope_name: str


def _join(shards: Sequence[_Shard], like: Tensor) -> Evaluations:
    """Return shards of one request as evaluations, placed as `like`."""

    def column(name: str) -> Tensor | None:
        if name not in shards[0].tensors:
            return None
        return torch.cat([shard.tensors[name] for shard in shards]).to(like)

    latent = column("latent")
    assert latent is not None
    return Evaluations(
        latent=latent,
        context=column("context"),
        outputs={name: torch.cat([shard.outputs[name] for shard in shards]).to(like) for name in shards[0].outputs},
        addresses=tuple(shard.address for shard in shards),
        slope_name=shards[0].slope_name or None,
        direction=column("direction"),
        gradient=column("gradient"),
    )


def _key(output: str) -> str:
    """Return the name of an output's tensor in a shard."""
    return f"output/{output}"


def _read(path: Path | None) -> tuple[dict[str, Tensor], _About]:
    """Return the tensors of a shard and what is known of it; nothing if it is missing or damaged."""
    if path is None:
        return {}, _About()
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
            about = json.loads(file.metadata()["about"])
            return tensors, _About(about["maker"], about["slope"], tuple(about.get("added", ())))
    except FileNotFoundError:
        return {}, _About()
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s is damaged (%s): its images are made again", path, error)
        return {}, _About()


def _gradient(value: Tensor, point: Tensor, name: str) -> Tensor:
    gradient = torch.autograd.grad(value, point, allow_unused=True)[0] if value.requires_grad else None
    if gradient is None:
        raise ConfigError(
            f"{name} does not depend on the latent through anything that torch can differentiate: say "
            "`gradient: none` for the model that reads the image"
        )
    return gradient


def _finite(values: Tensor, name: str) -> Tensor:
    if not bool(values.isfinite().all()):
        raise NonFiniteEnergyError(f"{name} became NaN or infinite for an image: check the energy or the classifier")
    return values.detach().cpu()
