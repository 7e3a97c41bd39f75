"""Measure a machine with a GPU in ten minutes: ``python -m benchmarks.gpu``.

Networks have random weights of their published sizes. What fails is a row with its error, and the rest goes on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptgen.commands.command import run_command, whole_number

if TYPE_CHECKING:
    import torch

    from promptgen.experiments.costs import Subject

OUT = Path("artifacts/gpu")
CARDS = {
    "StyleGAN2": "stylegan2-ffhq-1024",
    "StyleGAN2-ADA": "stylegan2-ada-ffhq-1024",
    "StyleGAN3-T": "stylegan3-t-ffhq-1024",
    "StyleGAN3-R": "stylegan3-r-ffhq-1024",
    "R3GAN": "r3gan-ffhq-256",
    "BigGAN-deep": "biggan-deep-512",
    "NVAE": "nvae-celebahq-256",
    "diffusion autoencoder": "diffae-ffhq-256",
    "StyleNeRF": "stylenerf-ffhq-1024",
    "DCGAN": "dcgan-faces",
    "embedded world": "world-generator",
    "CLIP B/32": "clip-vit-b-32",
    "FairFace": "fairface",
    "CelebA glasses": "celeba-glasses",
    "face-api age": "faceapi-age-gender",
    "ArcFace": "arcface",
    "DECA": "deca",
    "Inception": "inception-fid",
    "world's judge": "world-judge",
}
"""A card of each family, by what the table calls it."""

PRECISIONS = ("float32", "bfloat16")
MOST_IMAGES, TINY_IMAGES = 32, 2
REPEATS, SECONDS = 3, 2.0
"""Runs that are timed after the first, and seconds after which no further one follows."""

EXPERIMENT_SHARE = 0.45
"""Part of the time that is kept for the default experiment."""


@dataclass(frozen=True)
class Row:
    """What a network takes, per image of a batch.

    Attributes:
        network: what the table calls it.
        card: its card.
        precision: in which it computes.
        batch: images in the batch.
        parameters: number of weights.
        forward: images per second.
        gradient: images per second with a gradient to the input.
        forward_mib: peak of memory beyond the weights, MiB per image; None where it is not measured.
        gradient_mib: the same with a gradient.
        error: why there are no figures; empty if there are.
    """

    network: str
    card: str
    precision: str
    batch: int = 0
    parameters: int = 0
    forward: float | None = None
    gradient: float | None = None
    forward_mib: float | None = None
    gradient_mib: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Clock:
    """The time that is left.

    Attributes:
        end: when all has to be done, on the monotonic clock.
    """

    end: float

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.end - time.monotonic()

    def require(self) -> None:
        """Raise TimeoutError if no time is left."""
        if self.left <= 0:
            raise TimeoutError("left out, since the time is up")


def main(words: Sequence[str]) -> None:
    """Measure, and write gpu.json and gpu.md."""
    parser = argparse.ArgumentParser("python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", help="default: cuda")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FOLDER", help=f"default: {OUT}")
    parser.add_argument("--minutes", type=whole_number(1), default=9, metavar="N", help="most minutes; default: 9")
    parser.add_argument(
        "--networks", nargs="+", choices=CARDS, default=list(CARDS), metavar="NAME", help="default: all"
    )
    parser.add_argument("--tiny", action="store_true", help="tiny networks and a tiny experiment, to try this command")
    arguments = parser.parse_args(words)
    from benchmarks.gpu_parts import experiment, machine, step
    from benchmarks.gpu_table import write
    from promptgen.networks.devices import find_device

    device = find_device(arguments.device)
    clock = Clock(time.monotonic() + 60 * arguments.minutes)
    early = replace(clock, end=clock.end - 60 * arguments.minutes * EXPERIMENT_SHARE)
    figures: dict[str, Any] = {"machine": machine(device), "tiny": arguments.tiny, "networks": []}
    arguments.out.mkdir(parents=True, exist_ok=True)

    def keep(name: str, value: Any) -> None:
        figures[name] = value
        write(figures, arguments.out)

    for precision in PRECISIONS:
        keep(f"step {precision}", _guarded(partial(step, device, precision, arguments.tiny, early)))
    for name in arguments.networks:
        for row in measured(name, device, early, tiny=arguments.tiny):
            print(row.network, row.precision, row.error or f"{row.forward:.1f} images/s", flush=True)
            keep("networks", [*figures["networks"], asdict(row)])
    keep("experiment", _guarded(lambda: experiment(arguments.device, arguments.out, arguments.tiny, clock)))
    print(f"{arguments.out / 'gpu.md'} has the table")


def _guarded(work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Return what some work finds, or its error."""
    try:
        return dict(work())
    except Exception as error:
        return {"error": one_line(error)}


def one_line(error: Exception) -> str:
    """Return what an error says, in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


def measured(name: str, device: torch.device, clock: Clock, *, tiny: bool) -> Iterator[Row]:
    """Yield the row of a network in each precision."""
    from benchmarks.gpu_parts import make

    card, batch = CARDS[name], None
    for precision in PRECISIONS:
        row = Row(name, card, precision)
        try:
            clock.require()
            subject = make(card, device, precision, tiny=tiny)
            batch = batch or _batch(subject, device, tiny=tiny)  # the same in both precisions
            yield _figures(row, _repeated(subject, batch), device)
        except Exception as error:
            yield replace(row, error=one_line(error))


def _batch(subject: Subject, device: torch.device, *, tiny: bool) -> int:
    """Return how many images fit with a gradient."""
    from promptgen.networks.micro_batches import largest, memory_of

    if tiny or device.type != "cuda":
        return TINY_IMAGES
    return largest(MOST_IMAGES, lambda count: _repeated(subject, count).run(gradient=True), memory_of(device))


def _repeated(subject: Subject, batch: int) -> Subject:
    return replace(subject, inputs=subject.inputs[:1].expand(batch, *subject.inputs.shape[1:]).contiguous())


def _figures(row: Row, subject: Subject, device: torch.device) -> Row:
    from promptgen.experiments.costs import MIB, weights
    from promptgen.networks.micro_batches import memory_of

    batch, memory = len(subject.inputs), memory_of(device)
    rates, peaks = [], []
    for gradient in (False, True):
        if memory:
            memory.watch()
        subject.run(gradient=gradient)
        peaks.append(memory.taken() / MIB / batch if memory else None)
        rates.append(batch / fastest(partial(subject.run, gradient=gradient)))
    return replace(
        row,
        batch=batch,
        parameters=weights(subject.network),
        forward=rates[0],
        gradient=rates[1],
        forward_mib=peaks[0],
        gradient_mib=peaks[1],
    )


def fastest(work: Callable[[], object]) -> float:
    """Return the seconds of the fastest of some runs."""
    seconds: list[float] = []
    while len(seconds) < REPEATS and sum(seconds) < SECONDS:
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
