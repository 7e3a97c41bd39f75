"""Chains come back as they were saved; what is not a sound chain is refused in one line."""

import json

import pytest
import torch
from linear_gaussian import LinearGenerator, box
from safetensors.torch import save_file
from torch import nn

from promptgen.conditions import Condition
from promptgen.errors import CheckpointError, DataError
from promptgen.flows.chain_file import load_chain, save_chain
from promptgen.flows.chained import ChainedGenerator
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.generators.base import condition_of
from promptgen.loading.own_files import fill_module, load_tensors, save_module, save_tensors
from promptgen.seeding import stream

SPEC = {"type": "world", "model": "world-generator", "truncation": 1.0}
INFO = {"experiment": "x", "pass": 2, "fit": {"ess_fraction": 0.5}}


def make_flow(name, context_dim=0, dtype=torch.float32):
    flow = Flow(4, FlowConfig(blocks=2, hidden=8, log_scale_bound=1.5), box(context_dim), seed=7, dtype=dtype)
    rng = stream(0, name)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=rng, dtype=dtype)
    return flow


@pytest.fixture
def path(tmp_path):
    save_chain(tmp_path / "chain.safetensors", [make_flow("a"), make_flow("b", 2)], SPEC, INFO)
    return tmp_path / "chain.safetensors"


def test_a_chain_comes_back_exactly(path):
    chain = load_chain(path)
    assert chain.generator_spec == SPEC
    assert chain.info == INFO
    assert [flow.condition for flow in chain.flows] == [box(0), box(2)]
    eps, context = torch.randn(5, 4, generator=stream(0, "eps")), torch.ones(5, 2)
    assert torch.equal(chain.flows[0](eps)[0], make_flow("a")(eps)[0])
    assert torch.equal(chain.flows[1](eps, context)[0], make_flow("b", 2)(eps, context)[0])
    assert chain.flows[0].config == FlowConfig(blocks=2, hidden=8, log_scale_bound=1.5)


def test_a_chain_goes_on_a_generator_in_order(tmp_path):
    first, second = make_flow("a", dtype=torch.float64), make_flow("b", dtype=torch.float64)
    save_chain(tmp_path / "chain.safetensors", [first, second], SPEC, {})
    base, eps = LinearGenerator(), torch.randn(5, 4, generator=stream(0, "eps"), dtype=torch.float64)
    generator = load_chain(tmp_path / "chain.safetensors").on(base)
    assert isinstance(generator, ChainedGenerator)
    assert torch.equal(generator(eps), base(first(second(eps)[0])[0]))


def test_conditions_keep_their_names_ranges_and_order(tmp_path):
    pose = Condition({"yaw": (-0.3, 0.35), "pitch": (-0.1, 0.1)})
    save_chain(tmp_path / "chain.safetensors", [Flow(4, condition=pose), Flow(4)], SPEC, {})
    chain = load_chain(tmp_path / "chain.safetensors")
    assert [list(flow.condition.ranges.items()) for flow in chain.flows] == [list(pose.ranges.items()), []]
    assert condition_of(chain.on(LinearGenerator())) == pose


def test_parts_come_back(tmp_path):
    config = FlowConfig(blocks=2, hidden=8, parts=(2, 2))
    flow = Flow(4, config, seed=3)
    save_chain(tmp_path / "chain.safetensors", [flow], SPEC, {})
    (loaded,) = load_chain(tmp_path / "chain.safetensors").flows
    eps = torch.randn(5, 4, generator=stream(0, "eps"))
    assert loaded.config == config
    assert torch.equal(loaded(eps)[0], flow(eps)[0])


def test_an_empty_chain_is_the_generator_itself(tmp_path):
    save_chain(tmp_path / "chain.safetensors", [], SPEC, INFO)
    chain, base = load_chain(tmp_path / "chain.safetensors"), LinearGenerator()
    assert chain.flows == []
    assert chain.on(base) is base


def test_the_scale_of_the_prior_is_saved(tmp_path):
    scale = torch.tensor([0.5, 1.0, 2.0, 3.0])
    save_chain(tmp_path / "chain.safetensors", [Flow(4, FlowConfig(blocks=1, hidden=4), scale=scale)], SPEC, {})
    (flow,) = load_chain(tmp_path / "chain.safetensors").flows
    torch.testing.assert_close(flow(torch.ones(1, 4))[0][0], scale, atol=1e-5, rtol=0)


def test_equal_chains_make_equal_bytes(path):
    first = path.read_bytes()
    for _ in range(5):
        save_chain(path, [make_flow("a"), make_flow("b", 2)], SPEC, INFO)
        assert path.read_bytes() == first


def test_saving_leaves_the_global_random_state_alone(path):
    before = torch.random.get_rng_state()
    load_chain(path)
    assert torch.equal(before, torch.random.get_rng_state())


def rewrite(path, **changes):
    """Write the chain's file again with some of its config changed."""
    tensors, config = load_tensors(path)
    save_tensors(path, tensors, {**config, **changes})


def damage_in_place(path, how):
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "header cut":
        path.write_bytes(content[:40])
    elif how == "text":
        path.write_text("<html>Not found</html>")
    elif how == "pickle":
        torch.save({"flow": torch.zeros(2)}, path)
    elif how == "foreign":
        save_file({"a": torch.zeros(2)}, path, metadata={"format": "pt"})
    elif how == "no metadata":
        save_file({"a": torch.zeros(2)}, path)
    elif how == "metadata":
        save_file({"a": torch.zeros(2)}, path, metadata={"promptgen": "{"})
    elif how == "newer":
        save_file({"a": torch.zeros(2)}, path, metadata={"promptgen": json.dumps({"version": 99, "config": {}})})
    elif how == "folder":
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", "does not exist"),
        ("empty", "damaged"),
        ("truncated", "damaged"),
        ("header cut", "damaged"),
        ("text", "damaged"),
        ("pickle", "damaged"),
        ("foreign", "not written by this project"),
        ("no metadata", "not written by this project"),
        ("metadata", "damaged"),
        ("newer", "version 99"),
        ("folder", "damaged"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_in_one_line(path, how, words):
    damage_in_place(path, how)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_chain(path)
    assert "\n" not in str(caught.value)
    assert "chain.safetensors" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "classifier"}, "holds classifier, not a chain"),
        ({"flows": [{"dim": 4}]}, "does not describe a chain"),
        ({"flows": 3}, "does not describe a chain"),
        ({"generator": None}, "does not describe a chain"),
        ({"flows": [{"dim": 1, "condition": [], "dtype": "float32", "config": {}}]}, "does not describe a chain"),
        (
            {"flows": [{"dim": 4, "condition": [], "dtype": "float32", "config": {"x": 1}}]},
            "does not describe a chain",
        ),
        ({"flows": [{"dim": 4, "condition": [], "dtype": "float32", "config": {}}]}, "do not fit"),
        ({"flows": []}, "do not fit"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_in_one_line(path, changes, words):
    rewrite(path, **changes)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_chain(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_modules_and_their_config_come_back(tmp_path):
    path, module = tmp_path / "m.safetensors", nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    save_module(path, module, {"kind": "test", "labels": ["a", "b"]})
    tensors, config = load_tensors(path)
    assert config == {"kind": "test", "labels": ["a", "b"]}
    other = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    fill_module(other, tensors, path)
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in other.state_dict().items())
    with pytest.raises(CheckpointError, match="do not fit"):
        fill_module(nn.Linear(3, 2), tensors, path)


def test_shared_and_strided_tensors_can_be_saved(tmp_path):
    value = torch.arange(6.0).reshape(2, 3)
    save_tensors(tmp_path / "t.safetensors", {"a": value, "b": value, "c": value.T, "d": value[0]}, {})
    tensors, _ = load_tensors(tmp_path / "t.safetensors")
    assert torch.equal(tensors["b"], value)
    assert torch.equal(tensors["c"], value.T)
    assert torch.equal(tensors["d"], value[0])


def test_a_config_that_is_not_json_is_refused(tmp_path):
    for config in ({"a": {1}}, {"a": float("nan")}):
        with pytest.raises(DataError, match="plain finite JSON"):
            save_tensors(tmp_path / "t.safetensors", {}, config)
    assert list(tmp_path.iterdir()) == []
