"""The project's own weight files: safetensors with a JSON config inside, so that a file says by itself what it is.

A chain of trained flows is one such file. It holds the flows with the names and ranges of their conditions, how to
build the generator under them, and where they come from; it is loaded and sampled without any control model and without
params.yaml.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from promptgen.conditions import Condition
from promptgen.errors import CheckpointError, ConfigError, DataError
from promptgen.files import atomic_write
from promptgen.flow import Flow, FlowConfig
from promptgen.generators.base import Generator
from promptgen.generators.chained import ChainedGenerator
from promptgen.published import DAMAGE, number_faults

FORMAT = "promptgen"
VERSION = 1

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Chain:
    """Flows that were trained one on top of the other.

    Attributes:
        flows: the flows; the first one is the one on the generator itself.
        generator_spec: how to build the generator, as in params.yaml.
        info: where the flows come from: plain numbers, strings, lists and dicts.
    """

    flows: list[Flow]
    generator_spec: dict[str, Any]
    info: dict[str, Any]

    def on(self, generator: Generator) -> Generator:
        """Return `generator` with all flows of the chain on it."""
        for flow in self.flows:
            generator = ChainedGenerator(generator, flow)
        return generator


def save_chain(
    path: Path | str, flows: Sequence[Flow], generator_spec: Mapping[str, Any], info: Mapping[str, Any]
) -> None:
    """Write a chain to one file; equal chains make equal bytes.

    Args:
        path: the file, by custom `*.safetensors`.
        flows: the flows, the one on the generator itself first.
        generator_spec: how to build the generator.
        info: where the flows come from.

    Raises:
        DataError: `generator_spec` or `info` is not plain JSON.
        StorageError: the file cannot be written.
    """
    tensors = {f"flows.{i}.{name}": value for i, flow in enumerate(flows) for name, value in flow.state_dict().items()}
    described = [_describe(flow) for flow in flows]
    config = {"kind": "chain", "flows": described, "generator": dict(generator_spec), "info": dict(info)}
    save_tensors(path, tensors, config)


def load_chain(path: Path | str) -> Chain:
    """Read a chain.

    Raises:
        CheckpointError: the file is missing, damaged, or not a chain of this project.
    """
    tensors, config = load_tensors(path)
    if config.get("kind") != "chain":
        raise CheckpointError(f"{path} holds {config.get('kind', 'weights')}, not a chain of flows")
    try:
        for described in config["flows"]:
            _check_flow(described, tensors, path)
        flows = [_rebuild(described) for described in config["flows"]]
        chain = Chain(flows, dict(config["generator"]), dict(config["info"]))
    except (*DAMAGE, DataError) as error:
        raise CheckpointError(f"the config in {path} does not describe a chain: write the file again") from error
    fill_module(nn.ModuleList(flows), {name.removeprefix("flows."): value for name, value in tensors.items()}, path)
    return chain


def save_module(path: Path | str, module: nn.Module, config: Mapping[str, Any]) -> None:
    """Write a module's parameters and buffers with a config; `load_tensors` and `fill_module` read them.

    Raises:
        DataError: `config` is not plain JSON.
        StorageError: the file cannot be written.
    """
    save_tensors(path, module.state_dict(), config)


def save_tensors(path: Path | str, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write tensors with a config; equal content makes equal bytes.

    Raises:
        DataError: `config` is not plain JSON.
        StorageError: the file cannot be written.
    """
    try:
        text = json.dumps({"version": VERSION, "config": dict(config)}, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"the config of {path} must be plain finite JSON: {error}") from error
    # Clones, for the format refuses tensors that share memory. One key, for safetensors does not keep keys in order.
    plain = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    atomic_write(path, save(plain, metadata={FORMAT: text}))


def load_tensors(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors, on the CPU, and the config of a file of this project.

    Raises:
        CheckpointError: the file is missing, damaged, or was not written by this project.
    """
    try:
        Path(path).open("rb").close()  # for safetensors, a file that may not be read is one that is not there
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist") from error
    except PermissionError as error:
        raise CheckpointError(f"{path} cannot be read, permission is denied: change its owner or mode") from error
    except DAMAGE as error:
        raise CheckpointError(f"{path} is damaged or not a safetensors file: fetch or write it again") from error
    return tensors, _config_of(metadata.get(FORMAT), path)


def fill_module(module: nn.Module, tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """Copy `tensors` into the module's parameters and buffers; names and shapes must agree, and numbers be finite.

    Args:
        module: the module.
        tensors: a value for each of its names.
        path: the file that the tensors come from, for the error.

    Raises:
        CheckpointError: a tensor is missing, not expected, of another shape, or not finite.
    """
    own = module.state_dict()
    if faults := number_faults(own, {name: value for name, value in tensors.items() if name in own}):
        raise CheckpointError(f"the weights in {path} are damaged: {'; '.join(faults)}; fetch or write the file again")
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"the weights in {path} do not fit what its config describes: {reason}") from error


@contextmanager
def building(tensors: Mapping[str, Tensor], described: Any, path: Path | str) -> Iterator[None]:
    """Guard the building of a network that a file's config describes: the config may be anybody's.

    Args:
        tensors: the file's tensors.
        described: the part of its config that says how large the network is. No integer in it may be above the count
            of numbers in the file, since each layer, channel or word has one of them at the least.
        path: the file, for errors.

    Raises:
        CheckpointError: the config is not valid, or describes more than the file holds.
    """
    try:
        held = sum(value.numel() for value in tensors.values())
        if (largest := max(_integers(described), default=0)) > held:
            raise ValueError(f"it says {largest} where the file holds {held} numbers in all")
        yield
    except (*DAMAGE, DataError, ConfigError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"the config in {path} does not describe a network ({reason}): fetch it again") from error


def _integers(described: Any) -> Iterator[int]:
    """Yield every integer in plain JSON."""
    if isinstance(described, Mapping | list | tuple):
        for part in described.values() if isinstance(described, Mapping) else described:
            yield from _integers(part)
    elif isinstance(described, int):
        yield described


def _config_of(text: str | None, path: Path | str) -> dict[str, Any]:
    """Return the config in a file's metadata."""
    if text is None:
        raise CheckpointError(f"{path} was not written by this project: it has no {FORMAT} config inside")
    try:
        content = json.loads(text)
        version, config = int(content["version"]), dict(content["config"])
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"the config in {path} is damaged: fetch or write the file again") from error
    if version > VERSION:
        raise CheckpointError(f"{path} has format version {version}, this library reads up to {VERSION}: update it")
    return config


def _describe(flow: Flow) -> dict[str, Any]:
    """Return what `_rebuild` needs to make a flow of the same shape."""
    dtype = str(next(flow.parameters()).dtype).removeprefix("torch.")
    condition = [[name, *ends] for name, ends in flow.condition.ranges.items()]  # in order, which JSON objects lose
    return {"dim": flow.dim, "condition": condition, "dtype": dtype, "config": flow.config.model_dump()}


def _check_flow(described: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """Refuse a flow of more numbers than its file holds, before it is built: a file of a kilobyte may describe any.

    Raises:
        CheckpointError: a rotation and the outer layers of a coupling in each block would already be more.
    """
    config = FlowConfig.model_validate(described["config"])
    sizes = config.parts or (int(described["dim"]),)
    needed = config.blocks * sum(size * (size + config.hidden) for size in sizes)
    held = sum(value.numel() for value in tensors.values())
    if min(sizes) > 1 and needed > held:
        raise CheckpointError(
            f"the weights in {path} do not fit what its config describes: {needed} numbers, it has {held}"
        )


def _rebuild(described: Mapping[str, Any]) -> Flow:
    """Return a flow of the described shape, whose numbers are still to be filled in."""
    config, dtype = FlowConfig.model_validate(described["config"]), _DTYPES[described["dtype"]]
    condition = Condition({str(name): (float(low), float(high)) for name, low, high in described["condition"]})
    return Flow(int(described["dim"]), config, condition, dtype=dtype)
