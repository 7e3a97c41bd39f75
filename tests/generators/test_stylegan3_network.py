"""StyleGAN3's resampling, filters and gradients against plain definitions."""

import numpy as np
import pytest
import scipy.signal
import torch

from promptgen.generators.stylegan3.filters import low_pass, radial_low_pass
from promptgen.generators.stylegan3.layers import downsampled, upsampled
from promptgen.seeding import stream
from tests.generators import small


def literal_upsampling(line, taps, factor, before, after):
    """Insert zeros after each number, pad or crop, and correlate where the filter fits."""
    spread = np.zeros(len(line) * factor)
    spread[::factor] = line
    padded = np.concatenate([np.zeros(max(before, 0)), spread, np.zeros(max(after, 0))])
    padded = padded[max(-before, 0) : len(padded) - max(-after, 0)]
    return factor * np.correlate(padded, taps, "valid")


@pytest.mark.parametrize(("before", "after"), [(9, 8), (-6, -9), (11, 10), (0, 0), (30, 31), (3, 20)])
@pytest.mark.parametrize("factor", [1, 2, 4])
def test_upsampling_is_zero_insertion_padding_and_correlation(factor, before, after):
    rng = stream(0, "lines")
    taps = low_pass(6 * factor, 3.0, 2.0, 32.0).double()
    line, other = torch.randn(34, generator=rng).double(), torch.randn(29, generator=rng).double()
    result = upsampled(torch.outer(line, other)[None, None], taps, factor, (before, after), (after, 7))
    rows = literal_upsampling(line.numpy(), taps.numpy(), factor, before, after)
    columns = literal_upsampling(other.numpy(), taps.numpy(), factor, after, 7)
    torch.testing.assert_close(result[0, 0], torch.from_numpy(np.outer(rows, columns)))


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_downsampling_filters_and_keeps_every_nth_pixel(factor):
    x = torch.randn(2, 3, 20, 17, generator=stream(0, "maps")).double()
    taps = low_pass(6, 3.0, 2.0, 32.0).double()
    square = torch.outer(taps, taps)
    expected = torch.stack([torch.stack([convolved(one, square) for one in image]) for image in x])
    expected = expected[:, :, ::factor, ::factor]
    torch.testing.assert_close(downsampled(x, taps, factor), expected)
    torch.testing.assert_close(downsampled(x, square, factor), expected)


def convolved(map_, square):
    return torch.from_numpy(scipy.signal.correlate2d(map_.numpy(), square.numpy(), "valid"))


@pytest.mark.parametrize(
    ("taps", "cutoff", "width", "rate"), [(12, 2.0, 12.0, 32), (24, 4.0, 8.0, 64), (12, 9.0, 1.0, 32)]
)
def test_filters_are_those_of_the_window_method(taps, cutoff, width, rate):
    expected = scipy.signal.firwin(taps, cutoff, width=width, fs=rate)
    torch.testing.assert_close(low_pass(taps, cutoff, width, rate), torch.from_numpy(expected).float())
    radial = radial_low_pass(taps, cutoff, width, rate)
    assert float(radial.sum()) == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(radial, radial.T, rtol=0, atol=0)
    torch.testing.assert_close(radial, radial.flip(0, 1), rtol=0, atol=1e-7)


@pytest.mark.parametrize("variant", ["t", "r"])
def test_gradients_are_those_of_finite_differences(variant):
    model = small.stylegan3(variant=variant, channel_max=4, latent_dim=4, style_dim=3).double()
    with torch.no_grad():  # a movement that depends on the style, as in a trained network
        model.synthesis.input.affine.weight.normal_(generator=stream(0, "movement")).mul_(0.3)
    latent = model.prior.sample(1, stream(0, "latent")).double().requires_grad_()
    weights = torch.randn(3, 16, 16, generator=stream(0, "weights")).double()

    def weighted(z):
        return (model(z) * weights).sum()

    assert torch.autograd.gradcheck(weighted, latent, eps=1e-6, atol=1e-5, rtol=1e-4)


def test_the_backward_pass_keeps_no_upsampled_maps():
    model = small.stylegan3(channel_max=16)
    latent = small.latents(model, 1).requires_grad_()
    kept, gradient, _ = small.saved_bytes(model, latent)
    assert gradient.isfinite().all()
    maps = sum(4 * 16 * 36 * 36 for _ in model.synthesis.layer_names)
    assert kept < 4 * maps
