"""The world behind a prompt: its shares are known, and most of its noise changes nothing."""

from __future__ import annotations

import pytest
import torch

from promptgen.errors import ConfigError
from promptgen.metrics.shares import wilson
from promptgen.world.prompted import SUBJECTS, WORDS, PromptedWorld, long_hair, long_hair_by_prompt

DRAWN = 20_000


def true_long(generator, n=DRAWN):
    latent = torch.randn(n, generator.prior.dim, generator=torch.Generator().manual_seed(3))
    return float(generator.truth(latent)["hair"].double().mean())


@pytest.mark.parametrize("prompt", ["a person", "a builder", "a nurse with short hair"])
def test_the_share_of_long_hair_is_the_exact_one(prompt):
    generator = PromptedWorld(prompt, noise=(4, 8, 8))
    counted = wilson(true_long(generator) * DRAWN, DRAWN, confidence=0.999)
    assert counted.contains(long_hair(generator))


def test_without_a_shift_it_is_the_worlds_own():
    assert long_hair(PromptedWorld("a person", noise=(1, 8, 8))) == pytest.approx(0.42, abs=1e-4)


def test_words_move_the_share_but_not_all_the_way():
    shares = {words: long_hair(PromptedWorld("a builder" + words, noise=(1, 8, 8))) for words in WORDS}
    assert 0.05 < shares[""] < 0.2
    assert 0.5 < shares[" with long hair"] < 0.8
    assert shares[" with short hair"] < 0.01
    assert set(SUBJECTS) >= {"a person", "a builder"}


def test_most_of_the_noise_changes_nothing():
    generator = PromptedWorld("a nurse", noise=(4, 32, 32))
    noise = torch.randn(3, 4096, generator=torch.Generator().manual_seed(0))
    other = torch.randn(3, 4096, generator=torch.Generator().manual_seed(1))
    basis = torch.linalg.qr(generator.directions)[0]
    unseen = other - other @ basis @ basis.T
    torch.testing.assert_close(generator(noise + unseen), generator(noise), atol=1e-4, rtol=0)
    assert generator(noise).shape == (3, 3, 64, 64)
    seen = generator.world_latent(noise)
    torch.testing.assert_close(generator(noise), generator.world(seen))


def test_a_look_moves_all_latents_alike_but_not_their_hair():
    plain, collapsed = (PromptedWorld("a nurse", noise=(4, 8, 8), look=look) for look in (0.0, 5.0))
    noise, scene = torch.randn(4, 256, generator=torch.Generator().manual_seed(0)), plain.world.scene
    moved = (collapsed.world_latent(noise) - plain.world_latent(noise)) @ scene.rotation.T
    torch.testing.assert_close(moved, moved[:1].expand(4, -1))
    assert float(moved[0].norm()) == pytest.approx(5.0, abs=1e-4)
    assert moved[0, [scene.index[name] for name in ("hair", "glasses", "makeup")]].abs().max() < 1e-4


def test_several_prompts_are_drawn_by_their_shares():
    both = PromptedWorld(prompts={"a nurse": 0.75, "a builder": 0.25}, noise=(4, 8, 8))
    assert (both.prior.dim, both.held) == (257, 1)
    latent = both.prior.sample(64, torch.Generator().manual_seed(0))
    drawn = both.drawn.indices(latent)
    images, hair = both(latent), both.truth(latent)["hair"]
    for number, prompt in enumerate(("a builder", "a nurse")):
        alone, rows = PromptedWorld(prompt, noise=(4, 8, 8)), drawn == number
        assert 4 < int(rows.sum()) < 60
        torch.testing.assert_close(images[rows], alone(latent[rows, :-1]))
        assert torch.equal(hair[rows], alone.truth(latent[rows, :-1])["hair"])
        assert long_hair_by_prompt(both)[prompt] == long_hair(alone)
    assert long_hair(both) == pytest.approx(
        0.75 * long_hair(PromptedWorld("a nurse")) + 0.25 * long_hair(PromptedWorld("a builder"))
    )


@pytest.mark.parametrize(
    "options",
    [
        {"prompt": "a baker"},
        {"prompt": "a nurse with hair"},
        {"prompt": "a nurse", "noise": (1, 4, 4)},
        {"prompt": "a nurse", "look": -1.0},
        {},
        {"prompt": "a nurse", "prompts": {"a nurse": 0.5, "a builder": 0.5}},
        {"prompts": {"a nurse": 0.5, "a baker": 0.5}},
    ],
)
def test_what_it_cannot_draw_is_refused(options):
    with pytest.raises(ConfigError) as error:
        PromptedWorld(**options)
    assert "\n" not in str(error.value)
