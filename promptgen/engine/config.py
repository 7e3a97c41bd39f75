"""Where evaluations are computed: the `engine` section of params.yaml."""

from __future__ import annotations

import atexit
import functools
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from promptgen.engine.base import Engine, InlineEngine
from promptgen.strict import Section

MOST_PROCESSES, MOST_ACTORS = 256, 4096
"""Most workers on one machine, and on a cluster."""

ADDRESS = re.compile(r"(?:ray://)?[^\s/:]+:(\d{1,5})")


def _is_address(address: str) -> str:
    match = ADDRESS.fullmatch(address)
    if address not in ("auto", "local") and not (match and 0 < int(match[1]) < 65536):
        raise ValueError("should be auto, local, ray://HOST:PORT or HOST:PORT")
    return address


class InlineConfig(Section):
    """Evaluations in this process.

    Attributes:
        type: "inline".
    """

    type: Literal["inline"] = "inline"


class Workers(Section):
    """Base of the engines with workers.

    Attributes:
        workers: number of workers; each loads the generator and the models once.
        threads: CPU threads of each worker; null means as many as this process would use, so that figures do not differ
            from those of `inline` even by rounding.
        deadline: seconds after which a worker that has not finished a shard is replaced.
    """

    workers: int
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    deadline: Annotated[float, Field(gt=0)] = 3600.0


class ProcessConfig(Workers):
    """Evaluations in several processes of this machine.

    Attributes:
        type: "process".
        workers: number of workers; on a machine with several GPUs, each sees one of them, in turn.
    """

    type: Literal["process"]
    workers: Annotated[int, Field(ge=1, le=MOST_PROCESSES)]


class RayConfig(Workers):
    """Evaluations on a Ray cluster.

    Attributes:
        type: "ray".
        address: `auto` joins the cluster of this machine, `local` starts one that ends with this process, and
            ``ray://HOST:PORT`` or ``HOST:PORT`` joins the one there.
        gpus_per_worker: GPUs that each worker has for itself; a fraction shares one.
    """

    type: Literal["ray"]
    address: Annotated[str, AfterValidator(_is_address)] = "auto"
    workers: Annotated[int, Field(ge=1, le=MOST_ACTORS)]
    gpus_per_worker: Annotated[float, Field(ge=0, le=64)] = 1.0


EngineConfig = Annotated[InlineConfig | ProcessConfig | RayConfig, Field(discriminator="type")]


def engine_for(
    config: InlineConfig | ProcessConfig | RayConfig, device: str, gpus: int
) -> InlineConfig | ProcessConfig | RayConfig:
    """Return the engine that evaluates images: with ``device: auto``, a worker per GPU if a machine has several.

    Args:
        config: the section.
        device: where networks run, as in params.yaml.
        gpus: GPUs of this machine.

    Example:
        >>> engine_for(InlineConfig(), "auto", gpus=8).workers
        8
        >>> engine_for(InlineConfig(), "cuda:1", gpus=8)
        InlineConfig(type='inline')
    """
    spread = isinstance(config, InlineConfig) and device == "auto" and gpus > 1
    return ProcessConfig(type="process", workers=min(gpus, MOST_PROCESSES)) if spread else config


def open_engine(config: InlineConfig | ProcessConfig | RayConfig, device: str = "cpu") -> Engine:
    """Return the engine of a section; a process creates each engine once, and the workers end with the process.

    Workers start with the first shard.

    Args:
        config: the section.
        device: where networks run, as in params.yaml; unless it names one of several GPUs, each process sees one.
    """
    if isinstance(config, InlineConfig):
        return InlineEngine()
    return _with_workers(config, device in ("auto", "cuda"))


@functools.cache
def _with_workers(config: ProcessConfig | RayConfig, spread: bool) -> Engine:
    from promptgen.engine.dispatch import Dispatcher

    engine = Dispatcher(config.workers, functools.partial(_crew, config, spread), config.threads, config.deadline)
    atexit.register(engine.close)
    return engine


def _crew(config: ProcessConfig | RayConfig, spread: bool) -> object:
    if isinstance(config, ProcessConfig):
        import torch

        from promptgen.engine.processes import ProcessCrew, gpu_names

        return ProcessCrew(gpu_names(torch.cuda.device_count()) if spread else ())
    from promptgen.engine.ray_cluster import RayCrew

    return RayCrew(config)
