"""What chooses a flow is never what reports on it: every use of randomness in a pass has noise of its own."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations

import pytest
import torch

from promptgen import seeding
from promptgen.flows import batches, sampling
from promptgen.tracking import NullTracker
from steps import confirm, draw, fit_moments, sample, train_flow
from steps.shared.common import Pass, Project
from tests import tiny

TRAINING = {"train", "validate", "fit"}
CHOOSING = {"train", "validate", "moments"}
REPORTING = {"fit", "evaluate", "confirm", "draw"}
STREAMS = {
    "train_flow": TRAINING,
    "fit_moments": {"moments"},
    "sample": {"evaluate", "grid"},
    "confirm": {"confirm"},
    "draw": {"draw"},
}
PASSES = {1: ("train_flow", "sample", "confirm", "draw"), 2: ("fit_moments", "train_flow", "sample", "confirm", "draw")}


def do(step, this, out):
    if step == "draw":
        draw.run(this, draw.Request(300, out, seed=this.params.seed), NullTracker())
    else:
        steps = {"train_flow": train_flow, "fit_moments": fit_moments, "sample": sample, "confirm": confirm}
        steps[step].run(this, NullTracker())


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """The derived seeds of all noise that the steps of two passes drew, by (pass, step) and purpose."""
    folder = tmp_path_factory.mktemp("project")
    project, found, at = Project.load(tiny.write_params(folder)), defaultdict(set), None

    def spy(seed, *names, device="cpu"):
        if names[-1] not in ("context", "energy") and "condition" not in names:
            found[at, names[0]].add(seeding.derive(seed, *names))
        return real(seed, *names, device=device)

    real = seeding.stream
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "stream", spy)
        patch.setattr(sampling, "seeding", type("Spied", (), {"stream": staticmethod(spy)}))
        for number, steps in PASSES.items():
            for step in steps:
                at = (number, step)
                do(step, Pass(project, number), folder / f"drawn-{number}")
    return dict(found)


def test_every_step_draws_from_the_streams_that_it_should(seeds):
    for number, steps in PASSES.items():
        for step in steps:
            assert {purpose for at, purpose in seeds if at == (number, step)} == STREAMS[step]


def test_no_two_purposes_share_a_stream(seeds):
    """Pictures that are followed through the passes share theirs on purpose, with nothing else."""
    for first, second in combinations(seeds, 2):
        same = first[1] == second[1] and first[1] in ("grid", "draw")
        assert (seeds[first] == seeds[second]) if same else not seeds[first] & seeds[second], (first, second)


def test_what_chooses_never_reports(seeds):
    chosen, reported = (
        set().union(*(part for (_, purpose), part in seeds.items() if purpose in purposes))
        for purposes in (CHOOSING, REPORTING)
    )
    assert len(chosen) > 80  # each step of the trainings is a stream
    assert reported
    assert not chosen & reported


def test_what_confirms_is_not_what_decided_that_the_loop_ends(seeds):
    confirming = set().union(*(part for (_, purpose), part in seeds.items() if purpose == "confirm"))
    others = set().union(*(part for (_, purpose), part in seeds.items() if purpose != "confirm"))
    assert len(confirming) == 4  # two blocks of latents in each of two passes
    assert not confirming & others


def test_other_streams_give_other_noise(seeds):
    """No latent of a purpose occurs again in another: streams of other seeds do not overlap."""
    drawn = {}
    for purpose in CHOOSING | REPORTING | {"grid"}:
        firsts = sorted(set().union(*(part for (_, name), part in seeds.items() if name == purpose)))
        rows = [torch.randn(256, 4, generator=torch.Generator().manual_seed(seed)) for seed in firsts]
        drawn[purpose] = {row for part in rows for row in map(tuple, part.tolist())}
        assert len(drawn[purpose]) == 256 * len(firsts)
    for first, second in combinations(drawn, 2):
        assert not drawn[first] & drawn[second], (first, second)
