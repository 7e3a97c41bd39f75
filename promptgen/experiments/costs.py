"""The cost of a model: weights, multiply-accumulates, memory and seconds, with random weights where a type has them.

Multiply-accumulates are those of convolutions, grouped and transposed ones included, and of matrix products (linear
layers, `einsum`, attention). Normalisation, activations, pooling, resizing and grid sampling are left out: they are
little arithmetic, but they move memory and take time.

Memory is the peak less what the built network holds. On a CPU it is the resident memory of a fresh process that does
nothing else and returns freed blocks to the system at once; on a GPU it is what torch has allocated, to which the
driver adds a few hundred MiB.
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

from promptgen.config.build import has_random, load_model, random_model
from promptgen.errors import ConfigError, DataError, PromptGenError
from promptgen.model_files.cards import Cost, find_card
from promptgen.networks.devices import find_device
from promptgen.perception.networks import INPUT_SIDE
from promptgen.seeding import stream

MIB = 2**20
REPEATS = 4
SLOW_SECONDS = 5.0

IMAGE_SIDES: Mapping[str, int] = {"world-network": 64}
"""Height and width of the images that a model reads, by the type of its card, if the model does not say."""

_MMAP_THRESHOLD = -3  # of glibc's mallopt
_SMALLEST_MAPPED = 1 << 16
_PROCESS = Path("/proc/self")


@dataclass(frozen=True)
class Subject:
    """A network and what it is measured on.

    Attributes:
        network: the network, frozen.
        forward: computes what the network is for.
        inputs: latents of a generator's prior, (B, D), or images, (B, 3, H, W).
    """

    network: nn.Module
    forward: Callable[[Tensor], Any]
    inputs: Tensor

    def run(self, *, gradient: bool) -> None:
        """Compute forward; with `gradient`, also the gradient by the inputs."""
        with torch.inference_mode(not gradient):
            outputs = self.forward(self.inputs.clone().requires_grad_(gradient))
            if gradient:
                parts = [outputs] if isinstance(outputs, Tensor) else list(outputs.values())
                total = sum((part.sum() for part in parts), start=self.inputs.new_zeros(()))
                if total.requires_grad:  # Inception's features are of 8-bit images and have no gradient
                    total.backward()
        if self.inputs.is_cuda:
            torch.cuda.synchronize(self.inputs.device)


def subject(name: str, models: Path, batch: int = 1, device: str = "cpu") -> Subject:
    """Return the network of the card `name`, with its own weights if it is shipped or its type has no random ones.

    Args:
        name: name of the card.
        models: folder of the weight files, which hold the shapes of networks without random weights.
        batch: number of images B.
        device: where it runs.

    Raises:
        ConfigError: there is no such card, or it describes no network.
        ModelFileError: a weight file is needed and missing.
    """
    card = find_card(name, models)
    if card.kind == "multipliers":
        raise ConfigError(f"{name} holds multipliers, which cost nothing; expected the card of a network")
    shipped = any(url.startswith("package:") for file in card.files for url in file.urls)
    from_file = shipped or not has_random(card)
    # Which class an image has does not change its cost, but a network with classes needs one.
    options = {"classes": 0} if card.arguments.get("class_count") else {}
    network: nn.Module = (load_model if from_file else random_model)(name, models, card.kind, **options)
    rng = stream(0, "cost", name)
    if card.kind == "generator":
        inputs = network.prior.sample(batch, rng)  # type: ignore[union-attr, operator]
    else:
        side: int = IMAGE_SIDES.get(card.type) or getattr(network, "image_size", INPUT_SIDE)  # type: ignore[assignment]
        inputs = torch.rand(batch, 3, side, side, generator=rng)
    forward: Callable[[Tensor], Any] = network.image_features if card.kind == "clip" else network  # type: ignore[assignment]
    return Subject(network.to(device), forward, inputs.to(device))


def measure(name: str, models: Path, batch: int = 1, device: str = "cpu") -> dict[str, Any]:
    """Measure the model of the card `name`.

    Args:
        name: see `subject`.
        models: see `subject`.
        batch: see `subject`; memory is given per image.
        device: as of `promptgen.networks.devices.find_device`.

    Returns:
        `cost`, the fields of `promptgen.model_files.cards.Cost`; and `measured`, the machine, and the seconds of a
        batch without and with gradient, the best of a few runs.

    Raises:
        ConfigError: there is no such card or device, or memory cannot be measured on this system.
        DataError: the batch is empty.
        ModelFileError: a weight file is needed and missing.
    """
    device = str(find_device(device))
    if batch < 1:
        raise DataError(f"expected a batch of at least one image, got {batch}")
    return figures(subject, name, models, batch, device)


def figures(prepare: Callable[..., Subject], *arguments: Any) -> dict[str, Any]:
    """Measure the network that `prepare` builds.

    Args:
        prepare: builds the network with its inputs; a function at the top of a module, which runs in fresh processes,
            too.
        arguments: arguments of `prepare`; they have to be picklable.

    Returns:
        See `measure`.

    Raises:
        ConfigError: memory cannot be measured on this system.
    """
    measured = prepare(*arguments)
    batch, device = len(measured.inputs), measured.inputs.device
    tensors = [*measured.network.parameters(), *measured.network.buffers()]
    if measured.inputs.is_cuda:
        memory = [_cuda_peak(measured, gradient=gradient) for gradient in (False, True)]
    else:
        memory = [peak_in_fresh_process(_prepare, gradient, prepare, *arguments) for gradient in (False, True)]
    cost = Cost(
        parameters=weights(measured.network),
        gmac=round(multiply_accumulates(measured) / batch / 1e9, 3),
        weights_mib=round(sum(tensor.nbytes for tensor in tensors) / MIB, 1),
        forward_mib=round(memory[0] / batch, 1),
        backward_mib=round(memory[1] / batch, 1),
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


def weights(network: nn.Module) -> int:
    """Return the number of weights of a network; one without parameters, such as a graph, has them as buffers."""
    held: list[Tensor] = list(network.parameters()) or [
        buffer for buffer in network.buffers() if buffer.is_floating_point()
    ]
    return sum(map(Tensor.numel, held))


def multiply_accumulates(measured: Subject) -> int:
    """Return the multiply-accumulates of one forward pass."""
    # Fused attention is not counted everywhere; this kernel is made of matrix products, and gradients rule out others.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        measured.forward(measured.inputs.clone().requires_grad_())
    operations: int = counter.get_total_flops()
    return operations // 2


def best_seconds(measured: Subject, *, gradient: bool, repeats: int = REPEATS) -> float:
    """Return the seconds of the fastest of some runs; a slow one is not repeated.

    With a single thread they are seconds of the processor, which other work on the machine hardly changes.
    """
    alone = not measured.inputs.is_cuda and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    seconds: list[float] = []
    while len(seconds) < repeats and sum(seconds) < SLOW_SECONDS:
        started = clock()
        measured.run(gradient=gradient)
        seconds.append(clock() - started)
    return min(seconds)


def peak_in_fresh_process(prepare: Callable[..., Callable[[], object]], *arguments: Any) -> float:
    """Return the memory, MiB, that some work on the CPU takes on top of what was held before it.

    Args:
        prepare: builds what the work needs, and returns the work; a function at the top of a module.
        arguments: arguments of `prepare`; they have to be picklable.

    Raises:
        ConfigError: this system does not report the memory of a process.
    """
    if not (_PROCESS / "clear_refs").exists():
        raise ConfigError(f"memory on a CPU is measured by /proc, which {platform.system()} lacks; measure on Linux")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak, prepare, *arguments).result()


def _prepare(gradient: bool, prepare: Callable[..., Subject], *arguments: Any) -> Callable[[], None]:
    return partial(prepare(*arguments).run, gradient=gradient)


def _peak(prepare: Callable[..., Callable[[], object]], *arguments: Any) -> float:
    # With a fixed threshold, larger blocks are mapped one by one and returned when they are freed.
    ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _SMALLEST_MAPPED)
    work = prepare(*arguments)
    # Make torch load and start what any network needs, so that it does not count.
    layers = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ConvTranspose2d(8, 8, 4, stride=2), nn.Flatten())
    layers(torch.zeros(2, 8, 16, 16, requires_grad=True)).sum().backward()
    nn.Linear(64, 64)(torch.zeros(64, 64, requires_grad=True)).sum().backward()
    gc.collect()
    (_PROCESS / "clear_refs").write_text("5")  # forget the peak so far
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before


def _status(field: str) -> float:
    """Return a figure of this process's memory, MiB."""
    match = re.search(rf"^{field}:\s+(\d+) kB$", (_PROCESS / "status").read_text(), re.MULTILINE)
    return int(match[1]) / 1024 if match else 0.0


def _cuda_peak(measured: Subject, *, gradient: bool) -> float:
    device = measured.inputs.device
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    measured.run(gradient=gradient)
    return (torch.cuda.max_memory_allocated(device) - before) / MIB


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    threads = torch.get_num_threads()
    return f"{model[1] if model else platform.machine()}, {threads} thread{'s' * (threads > 1)}"


def main(name: str, models: Path, batch: int, device: str) -> int:
    """Print the cost of a model as YAML, whose part ``cost`` belongs on its card; return the exit status."""
    try:
        measured = measure(name, models, batch, device)
    except PromptGenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(yaml.safe_dump({name: measured}, sort_keys=False), end="")
    return 0
