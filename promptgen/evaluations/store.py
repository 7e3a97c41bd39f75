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

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from promptgen.energies.base import Sample
from promptgen.engine.base import Engine, InlineEngine, Recipe
from promptgen.errors import DataError
from promptgen.evaluations.config import FORWARD_UNITS, GRADIENT_UNITS, IDENTITY_NAME, SHARD_SIZE
from promptgen.evaluations.evaluator import Evaluator, Outputs, Request, Slope, output_key
from promptgen.evaluations.shard import About, read_shard, write_shard
from promptgen.files import read_json, write_json
from promptgen.generators.base import Generator
from promptgen.networks.micro_batches import MicroBatches, memory_of


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
        batch: images at a time; None for as many as fit on a GPU, and `CPU_BATCH` on a CPU.
        engine: evaluates shards.
        recipe: how workers of the engine make an equal evaluator; None suffices for the engine of this process.

    Raises:
        DataError: the folder belongs to another generator.
    """

    generator: Generator
    outputs: Mapping[str, Callable[[Sample], Tensor]]
    folder: Path | None = None
    identity: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    seed: int = 0
    batch: int | None = None
    engine: Engine = field(default_factory=InlineEngine)
    recipe: Recipe[Request, dict[str, Tensor]] | None = None
    spending: Spending = field(default_factory=Spending)

    def __post_init__(self) -> None:
        self.batches = MicroBatches(self.batch, memory_of(self.generator.prior.scale.device))
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
        requests = []
        for start in range(0, len(latent), SHARD_SIZE):
            part = slice(start, start + SHARD_SIZE)
            requests.append(
                Request(
                    latent[part],
                    None if context is None else context[part],
                    slope.name if slope else "",
                    slope.direction[part] if slope else None,
                ).addressed()
            )
        return _join(self._shards(requests, slope, progress), latent)

    def measure(self, latent: Tensor, context: Tensor | None = None) -> None:
        """Make the images of latents and read them in this process, but keep nothing, to see how long it takes."""
        self._evaluator(None)(Request(latent, context, names=tuple(self.outputs)))

    def load(self, addresses: Iterable[str], like: Tensor) -> list[Evaluations]:
        """Return shards that were written before; outputs that they lack are evaluated and added.

        Args:
            addresses: their names.
            like: a tensor with the device and floating-point type of the result.

        Raises:
            DataError: a shard is not there.
            NonFiniteEnergyError: an output is NaN or infinite.
        """
        requests = []
        for address in addresses:
            tensors, _ = read_shard(self._path(address))
            if "latent" not in tensors:
                raise DataError(
                    f"the evaluations {address[:12]} are missing in {self.folder}: remove the pass that made them "
                    "and run the same command again"
                )
            requests.append(Request(tensors["latent"], tensors.get("context"), address=address))
        return [_join([shard], like) for shard in self._shards(requests, None, None)]

    def _path(self, address: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{address}.safetensors"

    def _evaluator(self, slope: Slope | None) -> Evaluator:
        features = {slope.name: slope.features} if slope else {}
        return Evaluator(self.generator, self.outputs, features, self.seed, self.batches)

    def _shards(
        self, requests: Sequence[Request], slope: Slope | None, progress: Callable[[int], None] | None
    ) -> list[_Shard]:
        """Return shards; whatever the store lacks of them is evaluated and written, each as soon as it is done."""
        stored = {request.address: read_shard(self._path(request.address)) for request in requests}
        lacking = {
            request.address: lack
            for request in requests
            if (lack := self._lack(request, stored[request.address][0])) is not None
        }
        done = sum(len(request) for request in requests if request.address not in lacking)
        if progress and done:
            progress(done)
        todo = list(lacking.values())
        for number, made in self.engine.map(self.recipe, todo, self._evaluator(slope)):
            tensors, about = stored[todo[number].address]
            about = about.with_addition(self.user) if tensors else About(self.user, todo[number].slope)
            stored[todo[number].address] = self._keep(todo[number].address, tensors | made, about)
            done += len(todo[number])
            if progress:
                progress(done)
        return [self._spent(request, *stored[request.address], request.address in lacking) for request in requests]

    def _lack(self, request: Request, tensors: Mapping[str, Tensor]) -> Request | None:
        """Return what has to be evaluated of a shard that the store holds as `tensors`, None if nothing has to be."""
        names = tuple(name for name in self.outputs if output_key(name) not in tensors)
        direction = None if "gradient" in tensors else request.direction
        if not names and direction is None:
            return None
        return replace(request, names=names, direction=direction, slope=request.slope if direction is not None else "")

    def _keep(self, address: str, tensors: dict[str, Tensor], about: About) -> tuple[dict[str, Tensor], About]:
        """Write a shard, and return it."""
        if (path := self._path(address)) is not None:
            write_shard(path, tensors, about)
        return tensors, about

    def _spent(self, request: Request, tensors: dict[str, Tensor], about: About, lacked: bool) -> _Shard:
        """Return a shard, and count what it has cost its user."""
        spending, count = self.spending, len(request)
        made, added = about.maker == self.user, about.added.count(self.user)
        spending.cached += count * (not lacked)
        spending.shared += count * (not made and not added)
        spending.forward += count * (made + added)
        spending.backward += count * (made and "gradient" in tensors)
        outputs = {name: tensors[output_key(name)] for name in self.outputs}
        return _Shard(request.address, tensors, outputs, about.slope)


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
