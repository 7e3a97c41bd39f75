"""The commands of the steps. Arguments are read first; what a command needs is imported afterwards."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Sequence
from pathlib import Path

from promptgen.commands.command import Parser, whole_number
from promptgen.commands.library import add_device, add_models, add_params

STEPS = {
    "fit_moments": "fit the multipliers that give the attribute its target shares",
    "train_flow": "train the flow",
    "sample": "draw samples of the pass and read them with all models",
    "evaluate": "count the samples and compute all figures",
    "estimate_bias": "compare the shares with the target, and decide whether the loop stops",
    "confirm": "count the last pass again, on fresh samples",
}
"""The steps of a pass, each the module of that name in this package, in the order in which they run."""

EXACT_METHODS = ("resample", "metropolis")
WORLD_MODELS = ("generator", "classifier", "judge", "clip", "pose", "identity")


def add_experiment(parser: argparse.ArgumentParser) -> None:
    """Add `--params FILE` and `--experiment NAME`, which exclude each other."""
    either = parser.add_mutually_exclusive_group()
    add_params(either)
    either.add_argument("--experiment", metavar="NAME", help="a ready-made experiment; `promptgen experiments list`")


def add_pass(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add `--pass NUMBER`, which is read into `number`."""
    parser.add_argument(
        "--pass", dest="number", type=whole_number(0), required=required, metavar="NUMBER", help="the pass, from 0"
    )


def step(arguments: Sequence[str]) -> None:
    """Run `promptgen step`."""
    width = max(map(len, STEPS))
    listing = "\n".join(f"  {name:<{width}}  {about}" for name, about in STEPS.items())
    parser = Parser(
        "step",
        f"Run one step of one pass, unless it is done already. The steps, in order:\n\n{listing}",
        "promptgen step sample --pass 0\ntorchrun --nproc-per-node 4 -m promptgen step train_flow --pass 1",
    )
    parser.add_argument("name", choices=STEPS, metavar="STEP", help="one of the steps above")
    add_pass(parser)
    add_experiment(parser)
    options = parser.parse_args(arguments)
    from promptgen.errors import ConfigError
    from promptgen.networks.distributed import is_first, process_group, size
    from promptgen.progress import Bar
    from promptgen.tracking import NullTracker
    from steps.shared.common import Pass, Project

    project = Project.load(options.params, options.experiment)
    with process_group():
        if size() > 1 and options.name != "train_flow":
            raise ConfigError(f"only train_flow runs under torchrun: run {options.name} without it")
        run_pass = Pass(project, options.number)
        run = importlib.import_module(f"steps.{options.name}").run
        if not is_first():
            run(run_pass, NullTracker())
            return
        with Bar() as bar:
            result = run(run_pass, bar)
    print(f"{result['folder']}: {result['seconds']:.1f} s")


def check(arguments: Sequence[str]) -> None:
    """Run `promptgen check`."""
    parser = Parser("check", "Find mistakes in an experiment before it runs. Takes seconds and trains nothing.")
    add_experiment(parser)
    options = parser.parse_args(arguments)
    from steps import check
    from steps.shared.common import Project

    check.run(Project.load(options.params, options.experiment))
    print("the experiment can run")


def report(arguments: Sequence[str]) -> None:
    """Run `promptgen report`."""
    parser = Parser("report", "Write the report of an experiment from the files of its last run.")
    add_experiment(parser)
    options = parser.parse_args(arguments)
    from steps import report
    from steps.shared.common import Project

    report.run_and_attach(Project.load(options.params, options.experiment))


def list_models(arguments: Sequence[str]) -> None:
    """Run `promptgen list-models`."""
    parser = Parser(
        "list-models",
        "Compare the models listed in params.yaml, which `dvc repro` fetches, with those that the experiment uses.\n"
        "Write the licences of the models used to models/used.json.",
    )
    add_params(parser)
    path = Path(parser.parse_args(arguments).params)
    from promptgen.config.params import load_params
    from steps import list_models

    list_models.run(load_params(path), path.parent / "models")


def build_world(arguments: Sequence[str]) -> None:
    """Run `promptgen build-world`."""
    parser = Parser(
        "build-world",
        "Train the models of the embedded world from scratch: render images, train, measure, and write weights and\n"
        "cards. Takes hours on a few cores; an interrupted training continues.",
        "promptgen build-world --only classifier judge",
    )
    add_params(parser)
    parser.add_argument(
        "--only", nargs="+", choices=WORLD_MODELS, default=WORLD_MODELS, metavar="MODEL", help="models (default: all)"
    )
    options = parser.parse_args(arguments)
    from steps import build_world
    from steps.shared.common import Project

    build_world.run(Project.load(options.params), tuple(options.only))


def draw(arguments: Sequence[str]) -> None:
    """Run `promptgen draw`."""
    parser = Parser(
        "draw",
        "Draw images of a pass into a folder: as its flow makes them, or corrected to follow its energies exactly.",
        "promptgen draw --pass 2 --n 500 --out images\n"
        "promptgen draw --pass 2 --n 500 --out exact --exact metropolis --proposals 20000",
    )
    add_experiment(parser)
    add_pass(parser)
    parser.add_argument("--n", type=whole_number(1), required=True, metavar="N", help="number of images")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the images")
    parser.add_argument("--seed", type=int, help="seed of the noise (default: the experiment's)")
    parser.add_argument(
        "--exact", choices=EXACT_METHODS, help="correct the flow's samples by their weights: exact sampling"
    )
    parser.add_argument(
        "--proposals",
        type=whole_number(1),
        metavar="M",
        help="samples of the flow from which the exact ones are chosen (default: ten per image, at least 1000)",
    )
    parser.add_argument(
        "--condition",
        type=_condition,
        default={},
        metavar="NAME=VALUE,...",
        help="condition of the images, such as yaw=0.1 (default: random)",
    )
    parser.add_argument("--labels", action="store_true", help="label the images with the classifier and the judge")
    options = parser.parse_args(arguments)
    if options.proposals is not None and options.exact is None:
        parser.error("--proposals is for --exact: add --exact metropolis, or leave --proposals out")
    from steps import draw
    from steps.shared.common import Pass, Project

    run_pass = Pass(Project.load(options.params, options.experiment), options.number)
    request = draw.Request(
        n=options.n,
        out=options.out,
        seed=run_pass.params.seed if options.seed is None else options.seed,
        exact=options.exact,
        proposals=options.proposals,
        condition=options.condition,
        labels=options.labels,
    )
    draw.run_and_print(run_pass, request)


def audit(arguments: Sequence[str]) -> None:
    """Run `promptgen audit`."""
    options = _audit_options(arguments)
    from promptgen.audit.figures import Sampling
    from promptgen.audit.request import Request
    from promptgen.engine.config import InlineConfig
    from steps import audit

    engine = InlineConfig()
    if options.params:
        from promptgen.config.params import load_params

        engine = load_params(options.params).engine

    request = Request(
        source=options.images or options.labels,
        classifier=options.classifier,
        judge=options.judge,
        compare=options.compare,
        attributes=options.attribute,
        targets=options.target,
        confusions=options.confusion,
        size=options.size,
        batch=options.batch,
        device=options.device,
        models=options.models,
        sampling=Sampling(options.confidence, options.resamples, options.seed),
        groups=options.groups,
        normalise=options.normalise,
        engine=engine,
    )
    audit.run_and_print(request, options.out)


def _audit_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the arguments of `promptgen audit`, which fit together."""
    parser = _audit_parser()
    options = parser.parse_args(_joined(arguments, "--target"))
    if options.images and not options.classifier:
        parser.error("--images needs a --classifier, such as fairface")
    if options.labels and (options.classifier or options.judge):
        parser.error("--labels needs no models: leave out --classifier and --judge")
    if options.groups is not False and isinstance(options.groups, str) != bool(options.labels):
        parser.error("--groups needs a column with --labels, and takes none with --images")
    if options.normalise and not options.labels:
        parser.error("--normalise is for --labels: the classes of a classifier have one spelling each")
    if options.params and not options.images:
        parser.error("--params is for --images: labels need no engine")
    if not 0 < options.confidence < 1:
        parser.error(f"--confidence: expected a number between 0 and 1, such as 0.95, got {options.confidence:g}")
    return options


def _audit_parser() -> Parser:
    parser = Parser(
        "audit",
        "Measure the bias of images, or of labels in a CSV file. Print tables, and write JSON and an HTML page.\n"
        "An image that is not square is cropped to its central square. The published classifiers expect aligned\n"
        "faces; this command does not align them.",
        "promptgen audit --images FOLDER --classifier fairface\n"
        'promptgen audit --labels labels.csv --attribute gender "race x gender"',
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", type=Path, metavar="DIR", help="folder of images, including all folders below it")
    source.add_argument(
        "--labels", type=Path, metavar="CSV", help="CSV file of labels: a column per attribute, a row per image"
    )
    parser.add_argument("--classifier", metavar="NAME", help="card, module:factory or YAML file of a classifier")
    parser.add_argument("--judge", metavar="NAME", help="a second classifier, for comparison")
    parser.add_argument("--compare", type=Path, metavar="PATH", help="another folder, or CSV file, to compare with")
    parser.add_argument(
        "--attribute",
        nargs="+",
        default=[],
        metavar="NAME",
        help='attributes to measure, such as gender or "race x gender" (default: all)',
    )
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="SHARES",
        help='target shares: "Male=0.4, Female=0.6", "{40::Male|60::Female}", or "gender: ..." (default: uniform)',
    )
    parser.add_argument(
        "--confusion",
        action="append",
        default=[],
        type=Path,
        metavar="CSV",
        help="confusion table: how often each class is labelled as which",
    )
    parser.add_argument(
        "--groups",
        nargs="?",
        const=True,
        default=False,
        metavar="COLUMN",
        help="compare groups, such as occupations: with --images each direct sub-folder, with --labels each label of a "
        "column",
    )
    parser.add_argument(
        "--normalise", action="store_true", help="with --labels: count labels that differ only in spelling as one class"
    )
    parser.add_argument(
        "--size", type=whole_number(1), metavar="PIXELS", help="resize images to this side (default: keep their size)"
    )
    parser.add_argument("--batch", type=whole_number(1), default=32, metavar="N", help="images at a time (default: 32)")
    add_device(parser)
    parser.add_argument(
        "--params", type=Path, metavar="FILE", help="with --images: a params.yaml whose engine classifies the images"
    )
    add_models(parser)
    parser.add_argument("--confidence", type=float, default=0.95, help="confidence of every interval (default: 0.95)")
    parser.add_argument(
        "--resamples", type=whole_number(1), default=1000, metavar="N", help="simulations per interval (default: 1000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the simulations (default: 0)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("reports/audit"),
        metavar="DIR",
        help="folder for the results (default: reports/audit)",
    )
    return parser


def sync(arguments: Sequence[str]) -> int:
    """Run `promptgen sync`."""
    parser = Parser(
        "sync", "Send MLflow the records that it has missed because its server was down or its database was deleted."
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help="the project's folder (default: that of this code)")
    options = parser.parse_args(arguments)
    from steps import sync

    return sync.run() if options.root is None else sync.run(options.root)


def _joined(arguments: Sequence[str], option: str) -> list[str]:
    """Return arguments in which the option and its value are one: a value such as ``-1=0.5`` begins like an option."""
    joined = list[str]()
    for argument in arguments:
        if joined and joined[-1] == option:
            joined[-1] = f"{option}={argument}"
        else:
            joined.append(argument)
    return joined


def _condition(text: str) -> dict[str, float]:
    """Read ``yaw=0.1,pitch=0``."""
    values = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*([^=\s]+)\s*=\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*", part)
        if not match:
            raise argparse.ArgumentTypeError(f"expected NAME=NUMBER,..., got {part!r}")
        values[match[1]] = float(match[2])
    return values
