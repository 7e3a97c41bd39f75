"""A network that a file describes, and that would be larger than the file, is not built."""

import pytest
import torch

from promptgen.errors import ModelFileError
from promptgen.flows.chain_file import load_chain, save_chain
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.generators.biggan.generator import load_biggan
from promptgen.generators.nvae.generator import load_nvae
from promptgen.loading.own_files import load_tensors, save_tensors
from promptgen.perception.clip import load_open_clip
from promptgen.world.generator import load_generator
from promptgen.world.networks import load_network
from tests.loading.hostile_files.loaders import refused


@pytest.mark.parametrize(
    "config",
    [
        {"dim": 10**9},
        {"dim": 10**30},
        {"dim": None},
        {"config": {"blocks": 10**9, "hidden": 4}},
        {"config": {"blocks": 1, "hidden": 10**12}},
        {"config": {"blocks": 1, "hidden": 4, "log_scale_bound": float("1e400")}},
        {"config": {"blocks": 1, "hidden": 4, "parts": [10**5, 10**5]}},
        {"dtype": "object"},
        {"dtype": []},
    ],
)
def test_a_chain_larger_than_its_file_is_not_built(config, tmp_path):
    path = tmp_path / "chain.safetensors"
    save_chain(path, [Flow(4, FlowConfig(blocks=1, hidden=4))], {}, {})
    tensors, whole = load_tensors(path)
    flow = whole["flows"][0] | config
    if "config" in config and config["config"].get("log_scale_bound") == float("inf"):
        flow["config"]["log_scale_bound"] = 1e308 * 1e-308 * -1
    save_tensors(path, tensors, whole | {"flows": [flow]})
    refused(load_chain, path)


@pytest.mark.parametrize(
    "config",
    [{}, {"clip": 3}, {"clip": {"vision_width": 10**9}}, {"clip": {"text_layers": 10**9}}, {"clip": {"words": [{}]}}],
)
def test_a_clip_model_larger_than_its_file_is_not_built(config, tmp_path):
    path = tmp_path / "clip.safetensors"
    save_tensors(path, {"a": torch.zeros(8)}, config)
    refused(load_open_clip, path)


@pytest.mark.parametrize(
    "config",
    [{"kind": "world-pose"}, {"kind": "world-pose", "network": {"width": 10**9}}, {"kind": "world-pose", "network": 3}],
)
def test_a_world_model_larger_than_its_file_is_not_built(config, tmp_path):
    path = tmp_path / "pose.safetensors"
    save_tensors(path, {"a": torch.zeros(8)}, config)
    refused(load_network, path)
    save_tensors(path, {"a": torch.zeros(8)}, config | {"kind": "world-generator"})
    refused(load_generator, path)


def test_a_published_network_larger_than_its_file_is_not_built(path, tmp_path):
    options = {"num_latent_scales": 1, "num_groups_per_scale": 2, "ada_groups": False, "min_groups_per_scale": 1}
    options |= {"num_latent_per_group": 2, "num_channels_dec": 1024, "num_cell_per_cond_dec": 0, "use_se": False}
    options |= {"num_preprocess_blocks": 8, "num_postprocess_blocks": 0, "num_postprocess_cells": 1}
    options |= {"num_mixture_dec": 1, "arch_instance": "res_elu"}
    torch.save({"args": options, "state_dict": {"prior_ftr0": torch.zeros(1024 << 8, 1, 1)}}, path)
    refused(load_nvae, path, "describes 68719476736 numbers or more, and holds 262144")
    torch.save({"embeddings.weight": torch.zeros(2, 2)}, path)
    config = tmp_path / "config.json"
    config.write_text('{"num_classes": 1000000000}')
    with pytest.raises(ModelFileError, match="num_classes: should be less than or equal to 100000"):
        load_biggan(path, config_path=config)
