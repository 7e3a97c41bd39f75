"""BigGAN-deep: two scales of the prior, spectral norm, truncation and its statistics, attention, damaged files."""

import json

import pytest
import torch
import torch.nn.functional as F
from hostile import Trap
from pydantic import ValidationError

from promptgen.errors import ConfigError, ModelFileError
from promptgen.generators.biggan.config import PUBLISHED_LAYERS, BigGANConfig, published_config
from promptgen.generators.biggan.generator import BigGAN, load_biggan, random_biggan
from promptgen.generators.biggan.layers import Attention, Block, Normalisation, Standing, fold_spectral_norm
from promptgen.seeding import stream
from tests.generators import small


def published(model):
    """The state dict of a published file: each weight at thrice its spectral norm, with its first singular vectors."""
    state = {}
    plain = {"embeddings.weight", "generator.bn.weight"}
    for key, value in model.state_dict().items():
        if not key.endswith("weight") or key in plain:
            state[key] = value
            continue
        u, s, v = torch.linalg.svd(value.flatten(1), full_matrices=False)
        state |= {f"{key}_orig": 3 * value / s[0], f"{key}_u": u[:, 0], f"{key}_v": v[0]}
    return state


def write(folder, state=None, config=small.BIGGAN):
    torch.save(published(small.biggan()) if state is None else state, folder / "small-pytorch_model.bin")
    if config is not None:
        (folder / "small-config.json").write_text(json.dumps(config))
    return folder / "small-pytorch_model.bin"


def test_prior_has_two_scales():
    model = small.biggan()
    table = model.embeddings.weight
    torch.testing.assert_close(model.prior.scale[:5], torch.ones(5))
    torch.testing.assert_close(model.prior.scale[5:], table.square().mean().sqrt().expand(3))
    model.embeddings.weight.data *= 2
    model.freeze()
    torch.testing.assert_close(model.prior.scale[5:], table.square().mean().sqrt().expand(3))
    assert not [key for key in model.state_dict() if key.startswith("prior")]


def test_embeddings_are_columns_of_the_table():
    model = small.biggan()
    one_hot = F.one_hot(torch.tensor([6, 2]), 7).float()
    torch.testing.assert_close(model.embed(torch.tensor([6, 2])), model.embeddings(one_hot))


def test_condition_clamps_and_scales_z_alone():
    condition = small.biggan(truncation=0.4).conditioned(torch.full((1, 8), 3.0))
    torch.testing.assert_close(condition[0], torch.tensor([0.8] * 5 + [3.0] * 3))


@pytest.mark.parametrize(
    ("truncation", "mean"),
    [(1.0, 5.0), (0.4, 2.0), (0.35, 0.75 * 1 + 0.25 * 2)],  # between two rows the published weights are swapped
)
def test_statistics_of_a_truncation(truncation, mean):
    norm = Normalisation(2, Standing(rows=6, truncation=truncation, epsilon=0.5))
    norm.running_means.copy_(torch.arange(6.0)[:, None].expand(6, 2))
    norm.running_vars.copy_(norm.running_means + 1)
    found = norm.statistics()
    torch.testing.assert_close(found[0], torch.full((2,), mean))
    torch.testing.assert_close(found[1], torch.full((2,), (mean + 1.5) ** 0.5))


def test_a_block_equals_its_definition():
    block = Block(16, 8, 5, Standing(2, 1.0, 1e-4), stream(0, "block"), upsample=True).double()
    for norm in (block.bn_0, block.bn_1, block.bn_2, block.bn_3):
        norm.running_means.normal_(generator=stream(1, "means"))
        norm.running_vars.uniform_(0.5, 2.0, generator=stream(1, "variances"))
    x = torch.randn(2, 16, 4, 4, generator=stream(2, "x"), dtype=torch.float64)
    condition = torch.randn(2, 5, generator=stream(2, "condition"), dtype=torch.float64)

    def normalised(norm, value):
        mean, variance = norm.running_means[-1], norm.running_vars[-1]
        value = F.batch_norm(value, mean, variance, eps=1e-4)
        return value * (1 + norm.scale(condition))[..., None, None] + norm.offset(condition)[..., None, None]

    def doubled(value):
        return value.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    y = block.conv_0(F.relu(normalised(block.bn_0, x)))
    y = block.conv_1(doubled(F.relu(normalised(block.bn_1, y))))
    y = block.conv_2(F.relu(normalised(block.bn_2, y)))
    y = block.conv_3(F.relu(normalised(block.bn_3, y)))
    torch.testing.assert_close(block(x, condition), y + doubled(x[:, :8]))


def test_attention_equals_its_definition():
    attention = Attention(16, stream(0, "attention")).double()
    attention.gamma.data.fill_(0.3)
    x = torch.randn(1, 16, 4, 6, generator=stream(1, "x"), dtype=torch.float64)
    query, key, value = (
        layer(x)[0] for layer in (attention.snconv1x1_theta, attention.snconv1x1_phi, attention.snconv1x1_g)
    )
    key, value = (maps.unfold(1, 2, 2).unfold(2, 2, 2).amax(dim=(3, 4)) for maps in (key, value))
    weights = torch.softmax(torch.einsum("chw,cij->hwij", query, key).flatten(2), dim=2)
    found = torch.einsum("hwp,cp->chw", weights, value.flatten(1))
    torch.testing.assert_close(attention(x), x + 0.3 * attention.snconv1x1_o_conv(found[None]))


def test_truncation_changes_the_image():
    state = small.biggan().state_dict()
    state["generator.layers.0.bn_1.running_means"][2] = 1.0
    images = []
    for truncation in (0.4, 0.8):
        model = small.biggan(truncation=truncation)
        model.load_state_dict(state)
        z_is_zero = torch.cat([torch.zeros(1, 5), torch.ones(1, 3)], dim=1)
        images.append(model(z_is_zero))
    assert not torch.allclose(*images)


def test_folding_divides_by_the_spectral_norm(tmp_path):
    model = small.biggan()
    folded = fold_spectral_norm(published(model), tmp_path)
    assert folded.keys() == model.state_dict().keys()
    for key in ("generator.gen_z.weight", "generator.layers.1.conv_1.weight"):
        torch.testing.assert_close(torch.linalg.matrix_norm(folded[key].flatten(1), 2), torch.tensor(1.0))


def test_loading_reads_the_configuration_beside_the_weights(tmp_path):
    path = write(tmp_path, config=small.BIGGAN | {"something_new": True})
    model = load_biggan(path, truncation=0.4)
    assert model.config == BigGANConfig(**small.BIGGAN, truncation=0.4)
    expected = BigGAN(model.config)
    expected.load_state_dict(fold_spectral_norm(published(small.biggan()), path))
    expected.freeze()
    torch.testing.assert_close(model(small.latents(model)), expected(small.latents(model)), rtol=0, atol=0)
    torch.testing.assert_close(model.prior.scale, expected.prior.scale, rtol=0, atol=0)
    other = (tmp_path / "small-config.json").rename(tmp_path / "elsewhere.json")
    torch.testing.assert_close(load_biggan(path, config_path=other).prior.scale, model.prior.scale)


def test_published_sizes():
    for size, layers in PUBLISHED_LAYERS.items():
        assert published_config(size).output_dim == size
        assert sum(upsample for upsample, _, _ in layers[:8]) == {128: 4, 256: 4, 512: 4}[size]  # attention at 64 x 64
    with pytest.raises(ConfigError, match=r"\[128, 256, 512\], got 64"):
        random_biggan(64)


@pytest.mark.parametrize(
    "wrong",
    [
        {"output_dim": 32},
        {"layers": [[True, 16, 8], [True, 4, 1]]},
        {"layers": [[True, 16, 8], [True, 8, 4]]},
        {"attention_layer_position": 3},
        {"truncation": 0.0},
        {"truncation": 1.1},
        {"z_dims": 3},
    ],
)
def test_impossible_shapes_are_refused(wrong):
    with pytest.raises(ValidationError):
        BigGANConfig(**small.BIGGAN | wrong)


def changed(key, value):
    state = published(small.biggan())
    if value is None:
        del state[key]
    else:
        state[key] = value
    return state


def test_the_file_says_how_long_class_embeddings_are(tmp_path):
    path = write(tmp_path, config=small.BIGGAN | {"class_embed_dim": 128})
    assert load_biggan(path).config == small.biggan().config


def test_half_precision_is_read_as_single_before_a_norm_is_computed(tmp_path):
    halves = {key: value.half() for key, value in published(small.biggan()).items()}
    path = write(tmp_path, halves)
    expected = fold_spectral_norm({key: value.float() for key, value in halves.items()}, path)
    for key, value in load_biggan(path).state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("state", "config", "message"),
    [
        ([1, 2], small.BIGGAN, "expected a dict of tensors at the top level"),
        ({"epoch": 3}, small.BIGGAN, "expected a dict of tensors at the top level"),
        ({"weight": Trap()}, small.BIGGAN, "refused"),
        (
            changed("generator.gen_z.weight_u", None),
            small.BIGGAN,
            "missing: generator.gen_z.weight; .*unexpected: .*weight_orig",
        ),
        (changed("generator.gen_z.weight_v", torch.ones(9)), small.BIGGAN, "do not belong together"),
        (changed("generator.gen_z.bias", torch.ones(9)), small.BIGGAN, "of another shape: generator.gen_z.bias"),
        (changed("generator.odd", torch.ones(9)), small.BIGGAN, "unexpected: generator.odd"),
        (None, None, "expected the network's config.json"),
        (None, [1], "expected a JSON object, got list"),
        (None, small.BIGGAN | {"layers": 3}, "layers: should be"),
        (None, small.BIGGAN | {"output_dim": 32}, "16 pixels.*output_dim = 32"),
        (None, small.BIGGAN | {"num_classes": 8}, "of another shape: embeddings.weight"),
    ],
)
def test_a_damaged_or_foreign_file_is_named(tmp_path, refused, state, config, message):
    path = write(tmp_path, state, config)
    with refused(f"small-.*: .*{message}"):
        load_biggan(path)


def test_a_file_of_any_name_needs_its_size(tmp_path):
    path = write(tmp_path).rename(tmp_path / "weights.pt")
    with pytest.raises(ModelFileError, match=r"weights.pt: .*size.*config.json"):
        load_biggan(path)
    with pytest.raises(ModelFileError, match="size"):
        load_biggan(path, size=128)
