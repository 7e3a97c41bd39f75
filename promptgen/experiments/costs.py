"""What a model costs: weights, multiply-accumulates, memory and seconds, measured with random weights.

Multiply-accumulates are those of convolutions, also grouped and transposed ones, and of products of matrices (linear
layers, `einsum`, attention). Left out are normalisation, activations, pooling, resizing, sampling of grids and all else
that works number by number: little arithmetic, but it moves memory, so that it does take time.

Memory is the largest at any time less what there was once the network was built. On a CPU it is the resident memory of
a fresh process that does nothing else, in which freed blocks go back to the system at once; on a GPU it is what torch
has allocated, to which the driver's own few hundred MiB come.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import platform
import re
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from promptgen.config.build import load_model, random_model
from promptgen.devices import find_device
from promptgen.errors import ConfigError, DataError, PromptGenError
from promptgen.model_files.cards import Cost, find_card
from promptgen.perception.networks import INPUT_SIDE
from promptgen.seeding import stream

MIB = 2**20
REPEATS = 4
SLOW_SECONDS = 5.0

IMAGE_SIDES: Mapping[str, int] = {"world-network": 64}
"""Height and width of the images that a model looks at, by the type of its card, where it does not say so itself."""

_MMAP_THRESHOLD = -3  # of glibc's mallopt
_SMALLEST_MAPPED = 1 << 16
_PROCESS = Path("/proc/self")


@dataclass(frozen=True)
class Subject:
    """A network and what it is measured on.

    Attributes:
        network: the network, frozen.
        forward: computes what the network is for.
        given: its input: latents of a generator's prior, (B, D), or images, (B, 3, H, W).
    """

    network: nn.Module
    forward: Callable[[Tensor], Any]
    given: Tensor

    def run(self, *, gradient: bool) -> None:
        """Compute forward; with `gradient`, also the gradient by what went in."""
        with torch.inference_mode(not gradient):
            made = self.forward(self.given.clone().requires_grad_(gradient))
            if gradient:
                total = sum((part.sum() for part in _tensors(made)), start=self.given.new_zeros(()))
                if total.requires_grad:  # Inception's features are of 8-bit images, and let none through
                    total.backward()  # type: ignore[no-untyped-call]
        if self.given.is_cuda:
            torch.cuda.synchronize(self.given.device)


def subject(name: str, models: Path, batch: int = 1, device: str = "cpu") -> Subject:
    """Return the network of the card `name`, with random weights unless it is shipped, and its input.

    Args:
        name: name of the card.
        models: folder of the weight files; needed for shipped models alone, whose shapes are in their files.
        batch: images at a time B.
        device: where it runs.

    Raises:
        ConfigError: there is no such card, or it is of no network.
        ModelFileError: a weight file is needed and missing.
    """
    card = find_card(name, models)
    if card.kind == "multipliers":
        raise ConfigError(f"{name} holds multipliers, which cost nothing; expected the card of a network")
    shipped = any(url.startswith("package:") for file in card.files for url in file.urls)
    network: nn.Module = (load_model if shipped else random_model)(name, models, card.kind)
    rng = stream(0, "cost", name)
    if card.kind == "generator":
        given = network.prior.sample(batch, rng)  # type: ignore[union-attr, operator]
    else:
        side: int = IMAGE_SIDES.get(card.type) or getattr(network, "image_size", INPUT_SIDE)  # type: ignore[assignment]
        given = torch.rand(batch, 3, side, side, generator=rng)
    forward: Callable[[Tensor], Any] = network.image_features if card.kind == "clip" else network  # type: ignore[assignment]
    return Subject(network.to(device), forward, given.to(device))


def measure(name: str, models: Path, batch: int = 1, device: str = "cpu") -> dict[str, Any]:
    """Measure the model of the card `name`.

    Args:
        name: see `subject`.
        models: see `subject`.
        batch: see `subject`; figures of memory are per image.
        device: as of `promptgen.devices.find_device`.

    Returns:
        The fields of `promptgen.model_files.cards.Cost` under ``cost``; and under ``measured`` on what, and the seconds
        that a batch takes without (``forward_seconds``) and with (``backward_seconds``) gradient, the best of some
        runs.

    Raises:
        ConfigError: there is no such card or device, or memory cannot be measured on this system.
        DataError: the batch is empty.
        ModelFileError: a weight file is needed and missing.
    """
    device = str(find_device(device))
    if batch < 1:
        raise DataError(f"expected a batch of at least one image, got {batch}")
    measured = subject(name, models, batch, device)
    weights = [*measured.network.parameters(), *measured.network.buffers()]
    forward_mib, backward_mib = peaks(name, models, batch, device)
    cost = Cost(
        parameters=sum(parameter.numel() for parameter in measured.network.parameters()),
        gmac=round(multiply_accumulates(measured) / batch / 1e9, 3),
        weights_mib=round(sum(tensor.nbytes for tensor in weights) / MIB, 1),
        forward_mib=round(forward_mib / batch, 1),
        backward_mib=round(backward_mib / batch, 1),
    )
    seconds = [best_seconds(measured, gradient=gradient) for gradient in (False, True)]
    return {
        "cost": cost.model_dump(),
        "measured": {
            "device": _device_name(device),
            "torch": str(torch.__version__),
            "batch": batch,
            "forward_seconds": round(seconds[0], 4),
            "backward_seconds": round(seconds[1], 4),
            "images_per_second": round(batch / seconds[0], 2),
        },
    }


def multiply_accumulates(measured: Subject) -> int:
    """Return the multiply-accumulates of one forward pass; see above for what is left out."""
    # Fused attention is not counted everywhere; this kernel is made of matrix products, and gradients rule out others.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        measured.forward(measured.given.clone().requires_grad_())
    operations: int = counter.get_total_flops()
    return operations // 2


def best_seconds(measured: Subject, *, gradient: bool, repeats: int = REPEATS) -> float:
    """Return the seconds of the fastest of some runs; slow ones are not repeated, for their first is as fast.

    A single thread's are those of the processor, so that what else the machine does hardly matters.
    """
    alone = not measured.given.is_cuda and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    found: list[float] = []
    while len(found) < repeats and sum(found) < SLOW_SECONDS:
        started = clock()
        measured.run(gradient=gradient)
        found.append(clock() - started)
    return min(found)


def peaks(name: str, models: Path, batch: int, device: str) -> list[float]:
    """Return the memory, MiB, that a batch takes beside the weights, without and with gradient.

    Raises:
        ConfigError: see `measure`.
        ModelFileError: see `subject`.
    """
    if torch.device(device).type == "cuda":
        measured = subject(name, models, batch, device)
        return [_cuda_peak(measured, gradient=gradient) for gradient in (False, True)]
    return [peak_in_fresh_process(_prepare, name, models, batch, gradient) for gradient in (False, True)]


def _prepare(name: str, models: Path, batch: int, gradient: bool) -> Callable[[], None]:
    return partial(subject(name, models, batch).run, gradient=gradient)


def peak_in_fresh_process(prepare: Callable[..., Callable[[], object]], *arguments: Any) -> float:
    """Return the memory, MiB, that some work on the CPU takes beside what there was before it.

    Args:
        prepare: builds what the work needs, and returns the work; a function at the top of a module.
        arguments: of `prepare`; they have to be picklable.

    Raises:
        ConfigError: this system does not tell the memory of a process.
    """
    if not (_PROCESS / "clear_refs").exists():
        raise ConfigError(f"memory on a CPU is measured by /proc, which {platform.system()} has not; measure on Linux")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak, prepare, *arguments).result()


def _peak(prepare: Callable[..., Callable[[], object]], *arguments: Any) -> float:
    # A fixed threshold: larger blocks are mapped one by one, and given back when they are freed.
    ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _SMALLEST_MAPPED)
    work = prepare(*arguments)
    _warm_up()
    gc.collect()
    (_PROCESS / "clear_refs").write_text("5")  # the peak so far is forgotten
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before


def _warm_up() -> None:
    """Make torch load and start what any network needs, whichever it is."""
    layers = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ConvTranspose2d(8, 8, 4, stride=2), nn.Flatten())
    layers(torch.zeros(2, 8, 16, 16, requires_grad=True)).sum().backward()
    linear = nn.Linear(64, 64)
    linear(torch.zeros(64, 64, requires_grad=True)).sum().backward()


def _status(field: str) -> float:
    """Return a figure of this process's memory, MiB."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", (_PROCESS / "status").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def _cuda_peak(measured: Subject, *, gradient: bool) -> float:
    torch.cuda.synchronize(measured.given.device)
    torch.cuda.reset_peak_memory_stats(measured.given.device)
    before = torch.cuda.memory_allocated(measured.given.device)
    measured.run(gradient=gradient)
    return (torch.cuda.max_memory_allocated(measured.given.device) - before) / MIB


def _tensors(made: Any) -> list[Tensor]:
    return [made] if isinstance(made, Tensor) else list(made.values())


def _device_name(device: str) -> str:
    if torch.device(device).type == "cuda":
        return str(torch.cuda.get_device_name(device))
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    threads = torch.get_num_threads()
    return f"{model[1] if model else platform.machine()}, {threads} thread{'s' * (threads > 1)}"


def main(name: str, models: Path, batch: int, device: str) -> int:
    """Print what a model costs, as YAML whose part ``cost`` belongs into its card; return the exit status."""
    try:
        found = measure(name, models, batch, device)
    except PromptGenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(yaml.safe_dump({name: found}, sort_keys=False), end="")
    return 0
