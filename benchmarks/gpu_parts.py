"""What `benchmarks.gpu` measures: networks, a training step and its parts, and the default experiment."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.gpu import Clock, fastest
from benchmarks.tiny_networks import TINY
from promptgen.config.build import FACTORIES
from promptgen.config.registry import import_object
from promptgen.energies.base import Sample
from promptgen.energies.clip import ClipText
from promptgen.errors import EngineError
from promptgen.experiments.costs import Subject, subject
from promptgen.files import read_json
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.flows.objective import path_log_prob, reverse_kl
from promptgen.model_files.cards import find_card
from promptgen.model_files.store import fetch
from promptgen.networks.devices import wait_for
from promptgen.networks.frozen import rebound
from promptgen.networks.precision import use_precision
from promptgen.seeding import stream

MODELS = Path("models")
GENERATOR, CLIP = "stylegan2-ffhq-1024", "clip-vit-b-32"
STEP_IMAGES = 8
TEXT = "a photo of a baby"

SMALL_CLIP = "world-clip"


def machine(device: torch.device) -> dict[str, str]:
    """Return what was measured on."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {"device": gpu, "torch": str(torch.__version__), "python": platform.python_version()}


def make(card: str, device: torch.device, precision: str, *, tiny: bool) -> Subject:
    """Return a network with random weights, or its own if the package has them, and one input of it."""
    kind = find_card(card, MODELS).type
    if tiny and kind in TINY:
        factory = FACTORIES[kind]
        assert factory.random is not None
        network = import_object(f"{factory.module}:{factory.random}", card)(**TINY[kind])
        made = Subject(network.to(device), network, network.prior.sample(1, stream(0, "gpu")).to(device))
    else:
        if card.startswith("world-"):
            fetch(card, MODELS)
        made = subject(card, MODELS, device=str(device))
    use_precision(made.network, precision, device)
    return Subject(made.network, rebound(made.forward), made.inputs)


def step(device: torch.device, precision: str, tiny: bool, clock: Clock) -> dict[str, float]:
    """Return the seconds of a training step with CLIP, and of its parts each by itself."""
    clock.require()
    generator: Any = make(GENERATOR, device, precision, tiny=tiny).network
    clip: Any = make(SMALL_CLIP if tiny else CLIP, device, precision, tiny=tiny).network
    text = "a person without makeup" if tiny else TEXT
    energy = ClipText({"clip": (clip, 1.0)}, text, augmentations=0).to(device)
    n, dim = 2 if tiny else STEP_IMAGES, generator.prior.dim
    flow = Flow(dim, FlowConfig(blocks=2, hidden=8) if tiny else FlowConfig()).to(device)
    optimiser = torch.optim.Adam(flow.parameters())
    eps = torch.randn(n, dim, generator=stream(0, "step")).to(device)
    with torch.no_grad():
        latent = flow(eps)[0]
        image = generator(latent)

    def train(loss: Callable[[], torch.Tensor]) -> None:
        optimiser.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        wait_for(device)

    def differentiate(inputs: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        point = inputs.clone().requires_grad_()
        function(point).backward()  # type: ignore[no-untyped-call]
        wait_for(device)

    def of_flow() -> torch.Tensor:
        point, _ = flow(eps)
        log_q = path_log_prob(flow, point, None)
        value: torch.Tensor = (log_q - generator.prior.log_prob(point) + point.sum(dim=1)).mean()
        return value

    works: dict[str, Callable[[], None]] = {
        "step": lambda: train(lambda: reverse_kl(flow, generator, energy, eps).value),
        "flow": lambda: train(of_flow),
        "generator": lambda: differentiate(latent, lambda point: generator(point).mean()),
        "clip": lambda: differentiate(image, lambda point: energy(Sample(latent, point)).mean()),
    }
    seconds = {}
    for name, work in works.items():
        work()
        seconds[name] = fastest(work)
    ratio = seconds["step"] / sum(value for name, value in seconds.items() if name != "step")
    return {"images": n, **seconds, "ratio": ratio}


def experiment(device: str, folder: Path, tiny: bool, clock: Clock) -> dict[str, Any]:
    """Run the default experiment; return its seconds and its summary.

    Raises:
        EngineError: it has failed; the message is the last line that it wrote.
        subprocess.TimeoutExpired: it was not done in time.
    """
    clock.require()
    content = yaml.safe_load(Path("params.yaml").read_text()) | {"device": device}
    if tiny:
        content["control"] = None  # measures the generator, and trains nothing
        content["debias"]["max_passes"] = 0
        content["evaluation"] |= {"samples": 80, "fit_samples": 30, "bootstrap": 100, "grid": 4}
    root = folder / "experiment"
    root.mkdir(exist_ok=True)
    (root / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    for name in content["models"]:
        fetch(name, root / "models")
    command = [sys.executable, "-m", "promptgen", "run", "--params", str(root / "params.yaml")]
    started = time.monotonic()
    ran = subprocess.run(command, capture_output=True, text=True, timeout=clock.left, env=dict(os.environ), check=False)
    seconds = time.monotonic() - started
    if ran.returncode:
        raise EngineError((ran.stderr.strip().splitlines() or ["it said nothing"])[-1])
    return {"seconds": seconds, "summary": read_json(root / "reports" / "summary.json")}
