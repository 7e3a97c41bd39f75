"""What methods that train a flow with `promptgen.flows.training.train_flow` share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.measures import FlowSampler
from benchmarks.run import Watch
from benchmarks.scene import CountedGenerator
from benchmarks.tasks import Task
from promptgen.energies.base import Energy
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.flows.training import Multipliers, TrainingConfig, train_flow

LARGE = 1024
"""Above this number of dimensions, a flow has two blocks instead of eight: its rotations are full matrices."""


def new_flow(task: Task, config: FlowConfig, seed: int) -> Flow:
    """Return an untrained flow for the latents of a task."""
    return Flow(task.dim, config.model_copy(update={"blocks": 2}) if task.dim > LARGE else config, seed=seed)


def train_watched(
    task: Task,
    generator: CountedGenerator,
    energy: Energy,
    config: TrainingConfig,
    seed: int,
    watch: Watch,
    multipliers: Multipliers | None = None,
    flow_config: FlowConfig | None = None,
) -> None:
    """Train a new flow as the library does, and show it to `watch` after every step and at the end."""
    flow = new_flow(task, flow_config or FlowConfig(), seed)
    # The fit is measured by `watch`; the library's own would cost images.
    train_flow(
        generator,
        energy,
        flow,
        config,
        seed=seed,
        tracker=_Watching(flow, watch),
        multipliers=multipliers,
        fit_samples=1,
    )
    watch(FlowSampler(flow))


@dataclass(frozen=True)
class _Watching:
    """A tracker that shows a flow to `watch` after every step."""

    flow: Flow
    watch: Watch

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Ignore the numbers."""

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Show the flow."""
        self.watch(FlowSampler(self.flow))
