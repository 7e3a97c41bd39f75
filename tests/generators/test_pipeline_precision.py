"""Numbers of 16 bits in pipelines of diffusers: those of their files, and those that an experiment asks for."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from promptgen.errors import ModelFileError
from promptgen.networks.precision import use_precision

pytest.importorskip("diffusers")

from tests.generators import tiny_pipelines as tiny
from tests.generators.tiny_pipelines import load, noise

pytestmark = pytest.mark.filterwarnings("ignore")  # diffusers and transformers warn of their own deprecations


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_networks_keep_the_precision_of_their_files(tmp_path, family, kind):
    pipeline = tiny.build(family).to(kind)
    pipeline.save_pretrained(tmp_path)
    save_file(tiny.embeddings(family), tmp_path / "prompt.safetensors")
    generator = load(tmp_path, family)
    raised = family == "sdxl-turbo" and kind == torch.float16  # its decoder would overflow
    assert (generator.denoiser.dtype, generator.decoder.dtype) == (kind, torch.float32 if raised else kind)
    latent = noise(generator, 2).requires_grad_()
    image = generator(latent)
    assert image.dtype == torch.float32
    (gradient,) = torch.autograd.grad(image.sum(), latent)
    assert gradient.dtype == torch.float32
    assert gradient.isfinite().all()
    exact = load(tmp_path, family, precision="float32")
    torch.testing.assert_close(image, exact(latent), rtol=0, atol=0.1)
    assert exact.denoiser.dtype == torch.float32


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("own", [None, "bfloat16", "float16"])
@pytest.mark.parametrize("family", ["sd-turbo", "sdxl-turbo"])
def test_the_precision_of_params_leaves_networks_of_16_bits_as_they_are(saved, family, own, precision):
    folder, _ = saved(family)
    plain, lowered = (load(folder, family, precision=own) for _ in range(2))
    use_precision(lowered, precision, torch.device("cpu"))
    latent = noise(plain, 2).requires_grad_()
    images = [generator(latent) for generator in (plain, lowered)]
    gradients = [torch.autograd.grad(image.sum(), latent)[0] for image in images]
    if own:
        assert torch.equal(images[1], images[0])
        torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0.05 * float(gradients[0].abs().max()))
    else:
        assert 0 < float((images[1] - images[0]).abs().max()) < 0.1


def test_a_variant_is_found_by_its_name(tmp_path):
    pipeline = tiny.build("sdxl-turbo", decoder={"force_upcast": False}).to(torch.float16)
    pipeline.save_pretrained(tmp_path, variant="fp16")
    save_file(tiny.embeddings("sdxl-turbo"), tmp_path / "prompt.safetensors")
    generator = load(tmp_path, "sdxl-turbo", variant="fp16")
    assert generator.denoiser.dtype == generator.decoder.dtype == torch.float16
    with pytest.raises(ModelFileError, match="set `variant`"):
        load(tmp_path, "sdxl-turbo")
