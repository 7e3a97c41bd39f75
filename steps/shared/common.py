"""The experiment and its passes: where their files are, and whether a step's work is already done."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from promptgen.config.build import build_chain, build_classifier, identities
from promptgen.config.models import ReaderSpec
from promptgen.config.params import Params, PassKind, load_params
from promptgen.drawn import Drawn
from promptgen.engine.base import Engine
from promptgen.engine.config import engine_for, open_engine
from promptgen.errors import DataError
from promptgen.experiments.presets import FOLDER_NAME, find_preset
from promptgen.files import fingerprint, folder_lock, sha256_of, storage_error
from promptgen.generators.base import Generator
from promptgen.labels import PRODUCT
from promptgen.model_files.store import resolve
from promptgen.networks.compilation import compiled
from promptgen.networks.devices import find_device, placed
from promptgen.networks.distributed import from_first, is_first
from promptgen.networks.precision import use_precision
from promptgen.perception.base import Classifier
from promptgen.perception.informed import informed
from promptgen.seeding import derive
from steps.shared.code import code_sha256
from steps.shared.manifest import StepFolder

FORMAT_VERSION = 1
"""Version of the files that steps exchange."""

CHAIN_NAME = "chain.safetensors"
MOMENTS_NAME = "moments.json"

PASS_NUMBER = re.compile("0|[1-9][0-9]{0,3}")
"""Number of a pass in the name of its folder."""

Result = dict[str, Any]


@dataclass(frozen=True)
class Project:
    """An experiment and its folder.

    Attributes:
        root: folder of params.yaml, which contains models/, artifacts/ and reports/.
        params: content of params.yaml.
    """

    root: Path
    params: Params

    @classmethod
    def load(cls, params_path: Path | str, experiment: str | None = None) -> Project:
        """Read params.yaml; or take the ready-made experiment called `experiment`, whose folder is the current one.

        Raises:
            ConfigError: a key is unknown, missing, ill-typed or out of range, or there is no such experiment; or the
                images that are its target cannot be one.
        """
        if experiment is not None:
            return cls(Path.cwd(), find_preset(experiment, Path(FOLDER_NAME)).params()).with_target()
        path = Path(params_path).resolve()
        return cls(path.parent, load_params(path)).with_target()

    def with_target(self) -> Project:
        """Return the experiment with the shares of the images that are its target, if it names such a folder."""
        if self.params.debias.target_images is None:
            return self
        from steps.shared.target import reference_of  # reads images, which few experiments need

        reference = reference_of(self.root, self.params)
        assert reference is not None
        shares = {label: share.value for label, share in reference.shares.items()}
        debias = self.params.debias.model_copy(update={"target": shares, "target_samples": reference.n})
        return Project(self.root, self.params.model_copy(update={"debias": debias}))

    def placed(self, model: Any) -> Any:
        """Return a network on the device and in the precision of the experiment; anything else is returned unchanged.

        Raises:
            ConfigError: there is no such device, or torch cannot compute in that precision there.
        """
        device = find_device(self.params.device)
        model = placed(model, device)
        if self.params.compile:
            model = compiled(model)
        return use_precision(model, self.params.precision, device)

    def reader(self, spec: ReaderSpec) -> Classifier:
        """Return a classifier of images, which also knows what the generator has drawn for them; errors as of `placed`.

        Raises:
            ConfigError: the classifier cannot be built, or has an attribute that the generator draws.
            ModelFileError: a weight file is missing or damaged.
        """
        classifier = self.placed(build_classifier(spec, self.models))
        return informed(classifier, self.params.generator.drawn(self.models))

    def classifier(self) -> Classifier:
        """Return the classifier that steers training; it knows what was drawn if that is a part of the target."""
        debias = self.params.debias
        if self.drawn_in_target:
            return self.reader(debias.classifier)
        classifier: Classifier = self.placed(build_classifier(debias.classifier, self.models))
        return classifier

    @property
    def drawn_in_target(self) -> Drawn | None:
        """What the generator draws, if it is a factor of the attribute to de-bias; None otherwise."""
        drawn = self.params.generator.drawn(self.models)
        return drawn if drawn and drawn.name in self.params.debias.attribute.split(PRODUCT) else None

    @property
    def engine(self) -> Engine:
        """The engine that evaluates images, on this machine or others."""
        device = self.params.device
        return open_engine(engine_for(self.params.engine, device, torch.cuda.device_count()), device)

    @property
    def models(self) -> Path:
        """Folder of the weight files."""
        return self.root / "models"

    @property
    def artifacts(self) -> Path:
        """Folder of everything that the steps of this experiment write."""
        return self.root / "artifacts" / self.params.experiment

    @property
    def reports(self) -> Path:
        """Folder of the metrics and the report of a run."""
        return self.root / "reports"

    @property
    def weights(self) -> list[Path]:
        """Weight files of the generator; none for one of the user's own, or with random weights."""
        return [path for name in self.params.generator.cards() for path in resolve(name, self.models)]

    @property
    def fingerprint(self) -> str:
        """The sha256 of everything that the outcome of the loop depends on."""
        inputs = identities(self.params.specs, self.models) | {"code": code_sha256()}
        return fingerprint(
            self.params.model_dump(mode="json", exclude={"world", "device", "engine", "compile"}),
            inputs,
            FORMAT_VERSION,
        )

    def discard_passes_after(self, number: int) -> None:
        """Remove the passes that an earlier run with other parameters had after pass `number`.

        Raises:
            StorageError: they cannot be removed.
        """
        for folder in self.artifacts.glob("pass-*"):  # a folder such as pass-1.bak is the user's own
            name = folder.name.removeprefix("pass-")
            if PASS_NUMBER.fullmatch(name) and int(name) > number and folder.is_dir() and not folder.is_symlink():
                try:
                    shutil.rmtree(folder)
                except OSError as error:
                    raise storage_error(folder, error) from error


@dataclass(frozen=True)
class Pass:
    """One pass of the loop.

    Attributes:
        project: the experiment.
        number: 0 for the generator itself, then one per trained flow.

    Raises:
        ConfigError: the experiment has no such pass.
    """

    project: Project
    number: int

    def __post_init__(self) -> None:
        self.params.kind_of(self.number)  # raises if there is no such pass

    @property
    def params(self) -> Params:
        """Content of params.yaml."""
        return self.project.params

    @property
    def kind(self) -> PassKind:
        """Whether the pass measures the generator, controls it or de-biases it."""
        return self.params.kind_of(self.number)

    @property
    def seed(self) -> int:
        """Seed of the pass, independent of those of other passes."""
        return derive(self.params.seed, "pass", self.number)

    @property
    def before(self) -> Pass:
        """The pass before this one."""
        return Pass(self.project, self.number - 1)

    @property
    def after(self) -> Pass:
        """The pass after this one."""
        return Pass(self.project, self.number + 1)

    @property
    def chain(self) -> Path:
        """File of the flows trained so far, this pass's included; pass 0 has none."""
        return self.folder("train_flow") / CHAIN_NAME

    def folder(self, step: str) -> Path:
        """Return the output folder of a step."""
        return self.project.artifacts / f"pass-{self.number}" / step

    def generator(self, *, sampling: bool = False) -> Generator:
        """Return the generator with the flows up to this pass; `sampling` as for `build_chain`.

        Raises:
            CheckpointError: the flow of this pass is not trained yet.
            ModelFileError: the generator's weight file is missing or damaged.
        """
        if self.number == 0:
            generator = self.params.generator.build(self.project.models, sampling=sampling)
        else:
            generator = build_chain(self.chain, self.project.models, sampling=sampling)
        self.project.placed(generator.prior)  # a custom generator need not be a network, but flows need its prior
        placed: Generator = self.project.placed(generator)
        return placed

    def generator_inputs(self) -> dict[str, str]:
        """Return the sha256 of the files that `generator` is made from.

        Raises:
            DataError: the flow of this pass is not trained yet.
        """
        files = identities([self.params.generator], self.project.models)
        return files if self.number == 0 else {**files, CHAIN_NAME: self.sha256(self.chain)}

    def sha256(self, path: Path) -> str:
        """Return the sha256 of a file that an earlier step has written.

        Raises:
            DataError: it is not there.
        """
        if not path.is_file():
            step, number = path.parent.name, path.parent.parent.name.removeprefix("pass-")
            raise DataError(f"{path} is missing; write it with `promptgen step {step} --pass {number}`")
        return sha256_of(path)

    def step(
        self,
        name: str,
        params: Mapping[str, Any],
        inputs: Mapping[str, str],
        work: Callable[[StepFolder], Result],
    ) -> Result:
        """Do the work of a step, unless its manifest shows that it is done.

        Args:
            name: name of the step and of its module.
            params: all parameters that the outcome depends on.
            inputs: sha256 of all files that it depends on.
            work: writes files into the folder and returns the result. Its `seconds`, if it has any, are the time over
                all restarts; otherwise the time is measured here.

        Returns:
            A small dict: `folder`, `fingerprint`, `seconds`, `result`.

        Raises:
            StorageError: another run holds the folder, or it cannot be written.
        """
        params = {"precision": self.params.precision, **params}
        inputs = {**inputs, "code": code_sha256(name)}
        folder = StepFolder(self.folder(name), fingerprint(params, inputs, FORMAT_VERSION))
        with folder_lock(folder.path) if is_first() else nullcontext():
            if not from_first(folder.is_complete):
                from_first(folder.begin)
                started = time.perf_counter()
                result = work(folder)
                seconds = result.pop("seconds", time.perf_counter() - started)
                if is_first():
                    folder.finish(result, seconds, {"params": params, "inputs": inputs})
            manifest = from_first(folder.manifest)
        place = folder.path.relative_to(self.project.root).as_posix()
        return {"folder": place} | {key: manifest[key] for key in ("fingerprint", "seconds", "result")}
