"""A small network of every family of generators, its latents, and what its backward pass keeps in memory."""

import torch
from torch.autograd.graph import saved_tensors_hooks

from benchmarks.tiny_networks import TINY
from promptgen.generators.biggan.config import BigGANConfig
from promptgen.generators.biggan.generator import BigGAN
from promptgen.generators.dcgan import DCGAN, DCGANConfig
from promptgen.generators.diffae.generator import random_diffae
from promptgen.generators.nvae.generator import random_nvae
from promptgen.generators.r3gan.generator import random_r3gan
from promptgen.generators.stylegan2.generator import StyleGAN2, StyleGAN2Config
from promptgen.generators.stylegan3.generator import random_stylegan3
from promptgen.generators.stylenerf.generator import random_stylenerf
from promptgen.seeding import stream

STYLEGAN2 = TINY["stylegan2"]
BIGGAN = {
    "output_dim": 16,
    "z_dim": 5,
    "class_embed_dim": 3,
    "channel_width": 4,
    "num_classes": 7,
    "layers": [[False, 16, 8], [True, 8, 4], [True, 4, 1]],
    "attention_layer_position": 2,
    "n_stats": 6,
}
NVAE = TINY["nvae"]
NVAE_NUMBERS = [3 * 2 * 2, 3 * 4 * 4, 3 * 4 * 4]
"""Coordinates of each group's latent."""

DIFFAE = TINY["diffae"]
DIFFAE_CODE, DIFFAE_SIZE = DIFFAE["style_channels"], DIFFAE["image_size"]
STYLENERF, STYLEGAN3, R3GAN_SHAPE = TINY["stylenerf"], TINY["stylegan3"], TINY["r3gan"]
DCGAN_SHAPE = {"latent_dim": 6, "channels": [10, 8]}


def stylegan2(seed=0, classes=None, **options):
    """Return a network that is not frozen yet."""
    return StyleGAN2(StyleGAN2Config(**STYLEGAN2 | options), seed, classes)


def with_noise(model):
    """Let the noise of a StyleGAN2 count, as it does in a trained one; return `model`."""
    with torch.no_grad():
        for layer in (model.conv1, *model.convs):
            layer.noise.weight.fill_(0.1)
    return model


def biggan(seed=0, **options):
    model = BigGAN(BigGANConfig(**BIGGAN | options), seed)
    model.freeze()
    return model


def nvae(seed=0, **options):
    return random_nvae(seed=seed, **NVAE | options)


def diffae(seed=0, **options):
    return random_diffae(seed, **DIFFAE | options)


def stylenerf(seed=0, **options):
    return random_stylenerf(seed, **STYLENERF | options)


def stylegan3(seed=0, **options):
    return random_stylegan3(seed=seed, **STYLEGAN3 | options)


def r3gan(seed=0, **options):
    return random_r3gan(seed=seed, **R3GAN_SHAPE | options)


def dcgan(seed=0):
    model = with_statistics(DCGAN(DCGANConfig(**DCGAN_SHAPE), seed))
    model.freeze()
    return model


def with_statistics(model):
    """Let the normalisation of a DCGAN count, as it does in a trained one; return `model`."""
    rng = stream(0, "statistics")
    for layer in model.main:
        if isinstance(layer, torch.nn.BatchNorm2d):
            for value, low in ((layer.weight, 0.5), (layer.bias, -0.5), (layer.running_mean, -0.5)):
                value.data.uniform_(low, low + 1, generator=rng)
            layer.running_var.uniform_(0.5, 2, generator=rng)
    return model


def latents(model, n=3):
    return model.prior.sample(n, stream(0, "test"))


def saved_bytes(model, latent):
    """Return the bytes that are kept for the backward pass, the gradient and the image."""
    kept = []

    def keep(tensor):
        kept.append(tensor.nbytes)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        image = model(latent)
    (gradient,) = torch.autograd.grad(image.square().sum(), latent)
    return sum(kept), gradient, image
