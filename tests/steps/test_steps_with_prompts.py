"""The steps of a pass where the generator draws one of two prompts, and shares are wanted within each."""

from __future__ import annotations

import csv

import pytest
import torch

from promptgen.drawn import drawn_prompts
from promptgen.errors import ConfigError
from promptgen.flows.chained import base_latent
from promptgen.generators.base import GaussianPrior
from promptgen.seeding import stream
from promptgen.tracking import NullTracker
from steps import check, draw
from steps.drawing.gallery import SAMPLES_NAME
from steps.measuring.records import pass_record
from steps.shared.common import Pass
from steps.shared.evaluations import classifier_output
from tests import tiny
from tests.steps.projects import project_in, run_pass

PROMPTS = {"a builder": 0.75, "a nurse": 0.25}
LONG = {"a builder": 0.2, "a nurse": 0.7}
"""Share of long hair of each prompt, which the threshold of 0.3 turns into a shift of the first coordinate."""


class TinyPrompted(tiny.TinyGenerator):
    """The tiny generator behind one of several prompts, which differ in hair."""

    def __init__(self, prompts, held=1):
        super().__init__()
        self.drawn, self.held, self.prior = drawn_prompts(prompts), held, GaussianPrior.standard(4 + 1)
        long = torch.tensor([LONG[text] for text in self.drawn.labels])
        self.shift = 0.3 + torch.special.ndtri(long)

    def forward(self, latent, *, noise=None):
        return super().forward(self.behind(latent))

    def truth(self, latent):
        return super().truth(self.behind(latent))

    def behind(self, latent):
        """Return the latent of the tiny generator."""
        shift = self.shift.to(latent)[self.drawn.indices(latent)]
        return torch.cat([latent[:, :1] + shift[:, None], latent[:, 1:4]], dim=1)


def content(method="reuse", **debias):
    wanted = tiny.reuse_params() if method == "reuse" else tiny.params()
    wanted["generator"] = {"type": "custom", "factory": f"{__name__}:TinyPrompted", "prompts": PROMPTS}
    wanted["control"] = None
    wanted["debias"] |= {"within": "prompt"} | debias
    return tiny.lean(wanted)


@pytest.fixture(scope="module", params=["reuse", "on_policy"])
def debiased(request, tmp_path_factory, fewer_steps):
    """A project of which the passes 0 and 1 have been run."""
    wanted = content(request.param)
    if request.param == "on_policy":
        wanted["debias"]["training"] |= {"steps": 150, "batch": 128}
    project = project_in(tmp_path_factory.mktemp("prompts"), wanted)
    check.run(project)
    for number in range(2):
        run_pass(project, number)
    return project


def true_shares(project, number, n=20_000):
    """Return the share of each prompt, and that of long hair within each."""
    chain, plain = Pass(project, number).generator(), Pass(project, 0).generator()
    with torch.no_grad():
        eps = chain.prior.sample(n, stream(3, "eps"))
        latent = base_latent(chain, eps)
    assert torch.equal(latent[:, -1], eps[:, -1])
    drawn, long = plain.drawn.indices(latent), plain.truth(latent)["hair"].double()
    return [(drawn == k).double().mean().item() for k in (0, 1)], [long[drawn == k].mean().item() for k in (0, 1)]


def test_the_target_holds_within_each_prompt_and_the_prompts_keep_their_shares(debiased):
    prompts, long = true_shares(debiased, 0)
    assert prompts == pytest.approx([0.75, 0.25], abs=0.016)  # five standard errors
    assert long == pytest.approx([0.2, 0.7], abs=0.04)
    prompts, long = true_shares(debiased, 1)
    assert prompts == pytest.approx([0.75, 0.25], abs=0.016)
    assert long == pytest.approx([0.5, 0.5], abs=0.1)


def test_every_reader_counts_within_each_prompt(debiased):
    before = pass_record(Pass(debiased, 0))
    assert set(before.by) == {"classifier", "judge", "truth"}
    for reader in before.by.values():
        assert set(reader.within) == set(PROMPTS)
        for prompt, shares in reader.within.items():
            n = sum(count for label, count in reader.counts.items() if label.startswith(prompt))
            assert shares["long"].value == pytest.approx(reader.counts[f"{prompt} x long"] / n)
            assert shares["short"].value + shares["long"].value == pytest.approx(1)
            assert shares["long"].low < shares["long"].value < shares["long"].high
            assert shares["long"].value == pytest.approx(LONG[prompt], abs=2.5 / n**0.5)  # five standard errors


def test_pictures_are_labelled_with_their_prompts(debiased, tmp_path):
    draw.run(Pass(debiased, 1), draw.Request(n=40, out=tmp_path / "out", seed=5, labels=True), NullTracker())
    with (tmp_path / "out" / SAMPLES_NAME).open(newline="") as file:
        rows = list(csv.DictReader(file))
    prompts = [row["judge.prompt"] for row in rows]
    assert prompts == [row["classifier.prompt"] for row in rows]
    assert 20 < prompts.count("a builder") < 40  # of 30


def test_a_flow_without_prompts_in_its_target_reads_none(tmp_path):
    """So that the kept evaluations of a drawn class do not hold a column for each of a thousand."""
    whole, within = (project_in(tmp_path, content(**keys)) for keys in ({"within": None}, {}))
    assert "prompt" not in whole.classifier().attributes
    assert "prompt" in within.classifier().attributes
    assert "prompt" in whole.reader(whole.params.debias.judge).attributes  # what is measured is labelled all the same
    assert classifier_output(Pass(within, 0)) == f"{classifier_output(Pass(whole, 0))}+prompt"


def test_shares_over_all_prompts_are_not_counted_within_them(tmp_path):
    project = project_in(tmp_path, content(within=None))
    run_pass(project, 0)
    assert all(reader.within is None for reader in pass_record(Pass(project, 0)).by.values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attribute": "prompt x hair", "target": {"a baker x short": 0.5, "a nurse x long": 0.5}}, "a baker x short"),
        ({"attribute": "prompts x hair"}, "unknown attribute 'prompts'.*did you mean 'prompt'"),
    ],
)
def test_an_unknown_prompt_is_found_before_any_work(tmp_path, change, words):
    with pytest.raises(ConfigError, match=words) as error:
        check.run(project_in(tmp_path, content(within=None, **change)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("attribute", ["prompt x hair", "hair x prompt"])
def test_a_target_that_asks_for_other_prompts_is_refused(tmp_path, attribute):
    """No flow changes the shares of the prompts, so the loop would never end on target."""

    def target(nurse):
        shares = {("a builder", "short"): 0.75 - nurse, ("a builder", "long"): 0.1}
        shares |= {("a nurse", "short"): nurse, ("a nurse", "long"): 0.15}
        return {" x ".join(pair if attribute.startswith("prompt") else pair[::-1]): s for pair, s in shares.items()}

    check.run(project_in(tmp_path, content(within=None, attribute=attribute, target=target(0.1))))
    with pytest.raises(ConfigError, match=r"a builder sum to 0\.65, but .* a share of 0\.75"):
        check.run(project_in(tmp_path, content(within=None, attribute=attribute, target=target(0.2))))


def test_a_generator_that_holds_no_coordinate_is_refused(tmp_path):
    wanted = content()
    wanted["generator"]["arguments"] = {"held": 0}
    with pytest.raises(ConfigError, match=r"should draw a prompt .* 1 as the scale and 0 as `held`"):
        check.run(project_in(tmp_path, wanted))
