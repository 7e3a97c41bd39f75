"""What training costs beside the images of SD-Turbo at its true size: ``OMP_NUM_THREADS=1 python -m benchmarks.turbo``.

The pipeline has the published configuration and random weights, so nothing is downloaded. It takes 4 GB of disk for the
time being, and 12 GB of memory. The flow is trained on a task of as many dimensions, whose images cost nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptgen.commands.command import run_command, whole_number

if TYPE_CHECKING:
    from promptgen.evaluations.training import Trainer
    from promptgen.experiments.costs import Subject

UNITS, FIT, BATCH = 8192, 1024, 256
RANK = 64
"""Directions of the flow whose descent is measured; the task needs fewer."""

GOAL = 0.05
"""Largest wanted duration of a step of training, as a fraction of an image's."""

SIZES: dict[str, dict[str, Any]] = {
    "true": {
        "unet": {
            "sample_size": 64,
            "block_out_channels": (320, 640, 1280, 1280),
            "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
            "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
            "layers_per_block": 2,
            "attention_head_dim": (5, 10, 20, 20),
            "cross_attention_dim": 1024,
        },
        "vae": {"sample_size": 768, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
    },
    "tiny": {
        "unet": {
            "sample_size": 16,
            "block_out_channels": (8, 16),
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "layers_per_block": 1,
            "attention_head_dim": (2, 4),
            "cross_attention_dim": 16,
            "norm_num_groups": 4,
        },
        "vae": {"sample_size": 32, "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4},
    },
}
"""Configurations of the denoiser and the decoder."""

TOKENS = 77


def main(words: Sequence[str]) -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser("python -m benchmarks.turbo", description=__doc__)
    parser.add_argument("--units", type=whole_number(512), default=UNITS, metavar="N", help=f"default: {UNITS}")
    parser.add_argument("--tiny", action="store_true", help="tiny networks, to try this command")
    arguments = parser.parse_args(words)
    import yaml

    image, dim = cost_of_an_image("tiny" if arguments.tiny else "true")
    print(yaml.safe_dump({"sd-turbo": image}, sort_keys=False), end="", flush=True)
    for line in cost_of_training(dim, arguments.units, image["measured"]["forward_seconds"]):
        print(line, flush=True)
    for line in memory_of_training(dim, arguments.units):
        print(line, flush=True)


def cost_of_an_image(size: str) -> tuple[dict[str, Any], int]:
    """Return what `promptgen cost` would tell of the pipeline, and the number of dimensions of its latent."""
    from promptgen.experiments.costs import figures

    with tempfile.TemporaryDirectory() as folder:
        save_pipeline(Path(folder), size)
        return figures(pipeline, Path(folder)), pipeline(Path(folder)).inputs.shape[1]


def cost_of_training(dim: int, units: int, image: float) -> Iterator[str]:
    """Yield what training takes between its images, and a step of it, beside the seconds of an image."""
    from promptgen.evaluations.descent import QUICK_STEPS

    trainer = new_trainer(dim)
    seconds, spent = _seconds(partial(trainer.train, units, fit_samples=FIT)), trainer.store.spending
    yield (
        f"training, {dim:,} dimensions, {spent.units:,} units: {seconds:.1f} s beside its {spent.forward:,} images, "
        f"{seconds / spent.forward / image:.2%} of an image for each"
    )
    step = _seconds(descent_of(dim)) / QUICK_STEPS
    compared = f"{step / image:.2%} of an image, goal {GOAL:.0%} or less"
    yield f"a step of it along {rank_of(dim)} directions: {1000 * step:.1f} ms, {compared}"


def memory_of_training(dim: int, units: int) -> Iterator[str]:
    """Yield the memory of a descent and of a whole training, with all its records."""
    from promptgen.experiments.costs import peak_in_fresh_process

    yield f"memory of a descent along {rank_of(dim)} directions: {peak_in_fresh_process(descent_of, dim):.0f} MiB"
    yield f"memory of a whole training, with its records: {peak_in_fresh_process(training_of, dim, units):.0f} MiB"


def save_pipeline(folder: Path, size: str) -> None:
    """Write a pipeline with random weights, and the embeddings of a random prompt."""
    import torch
    from safetensors.torch import save_file

    from promptgen.networks.torchvision_ops import import_diffusers

    diffusers, config = import_diffusers(), SIZES[size]
    decoder = diffusers.AutoencoderKL(
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * len(config["vae"]["block_out_channels"]),
        up_block_types=("UpDecoderBlock2D",) * len(config["vae"]["block_out_channels"]),
        **config["vae"],
    )
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        timestep_spacing="trailing",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        denoiser = diffusers.UNet2DConditionModel(use_linear_projection=True, **config["unet"])
        prompt = torch.randn(1, TOKENS, config["unet"]["cross_attention_dim"])
    parts = {"unet": denoiser, "vae": decoder, "scheduler": scheduler}
    without = ("text_encoder", "tokenizer", "safety_checker", "feature_extractor")
    saved = diffusers.StableDiffusionPipeline(**parts, **dict.fromkeys(without), requires_safety_checker=False)
    saved.save_pretrained(folder)
    save_file({"prompt_embeds": prompt}, folder / "prompt.safetensors")


def pipeline(folder: Path) -> Subject:
    """Return the pipeline of a folder, as a generator, and a latent of it."""
    from promptgen.experiments.costs import Subject
    from promptgen.generators.pipeline.generator import load_pipeline
    from promptgen.seeding import stream

    generator = load_pipeline(folder, embeddings=folder / "prompt.safetensors", steps=1, guidance=0.0)
    return Subject(generator, generator, generator.prior.sample(1, stream(0, "turbo")))


def new_trainer(dim: int, rank: int | None = None) -> Trainer:
    """Return what trains a flow, along as many directions as it needs or `rank`, to equal shares of two classes."""
    import numpy as np

    from benchmarks.scene import Reader, Scale, Scene, curved
    from benchmarks.truth import boundaries
    from promptgen.energies.moment import MomentEnergy
    from promptgen.evaluations.landing import Target
    from promptgen.evaluations.objective import moment_objective
    from promptgen.evaluations.store import EvaluationStore
    from promptgen.evaluations.training import Trainer
    from promptgen.flows.flow import FlowConfig

    classifier = Reader({"class": Scale(curved, boundaries(curved, (0.88, 0.12)))})
    objective, outputs = moment_objective(MomentEnergy(classifier, "class"), "classifier")
    store = EvaluationStore(Scene(dim), outputs, batch=BATCH, seed=1)
    return Trainer(store.generator, store, objective, FlowConfig(rank=rank), 1, target=Target(np.array([0.5, 0.5])))


def training_of(dim: int, units: int) -> Callable[[], object]:
    """Return a whole training."""
    return partial(new_trainer(dim).train, units, fit_samples=FIT)


def descent_of(dim: int) -> Callable[[], object]:
    """Return a descent of a flow along many directions, whose training has not cost more than it has to."""
    from promptgen.evaluations.config import LEAST_BUDGET

    trainer = new_trainer(dim, rank_of(dim))
    trainer.train(LEAST_BUDGET)
    return partial(trainer.descend, "again", fresh=True)


def rank_of(dim: int) -> int:
    """Return the number of directions whose descent is measured."""
    return min(RANK, dim // 2)


def _seconds(work: Callable[[], object]) -> float:
    """Return the seconds that one thread computes for some work."""
    from promptgen.networks.devices import torch_threads

    with torch_threads(1):
        started = time.process_time()
        work()
        return time.process_time() - started


if __name__ == "__main__":
    from benchmarks import turbo  # fresh processes import this module by its name, not as `__main__`

    sys.exit(run_command(turbo.main, sys.argv[1:]))
