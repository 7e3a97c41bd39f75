"""Every loader of weight files, and what a refusal by one looks like."""

import pytest

from promptgen.errors import CheckpointError, ModelFileError
from promptgen.flows.chain_file import load_chain
from promptgen.generators.biggan.generator import load_biggan
from promptgen.generators.dcgan import load_dcgan
from promptgen.generators.nvae.generator import load_nvae
from promptgen.generators.r3gan.generator import load_r3gan
from promptgen.generators.stylegan2.generator import load_stylegan2
from promptgen.generators.stylegan3.generator import load_stylegan3
from promptgen.generators.stylenerf.file import read_generator
from promptgen.loading.published import read_state, read_torch, read_training
from promptgen.perception.arcface import load_arcface
from promptgen.perception.beta import read_beta
from promptgen.perception.celeba import load_celeba
from promptgen.perception.clip import load_open_clip
from promptgen.perception.deca import load_deca
from promptgen.perception.fairface import load_fairface
from promptgen.world.generator import load_generator
from promptgen.world.networks import load_network

SMALL = "resnet18"
LOADERS = {
    "read_torch": read_torch,
    "read_training": read_training,
    "read_state": lambda path: read_state(path, "g_ema"),
    "stylegan2": lambda path: load_stylegan2(path, 8, latent_dim=8, mapping_layers=1),
    "biggan": lambda path: load_biggan(path, size=128),
    "nvae": load_nvae,
    "dcgan": load_dcgan,
    "fairface": lambda path: load_fairface(path, architecture=SMALL),
    "celeba": lambda path: load_celeba(path, "glasses", architecture=SMALL, hidden=8),
    "arcface": lambda path: load_arcface(path, input_side=16, dim=8),
    "deca": lambda path: load_deca(path, SMALL, hidden=8),
    "beta": read_beta,
    "clip": lambda path: load_open_clip(path, "tiny-hostile"),
    "diffae": lambda path: read_state(path, "state_dict", read_training),
    "stylenerf": read_generator,
    "stylegan3": load_stylegan3,
    "r3gan": load_r3gan,
    "own clip": load_open_clip,
    "chain": load_chain,
    "world network": load_network,
    "world generator": load_generator,
}
every = pytest.mark.parametrize("loader", LOADERS)


def refused(loader, path, match=None):
    """Let a loader read a file, which it must refuse in one line with the path; return the line."""
    with pytest.raises((ModelFileError, CheckpointError), match=match) as caught:
        loader(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 800 + len(str(path))
    return message
