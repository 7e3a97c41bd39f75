"""The measurement of a machine with a GPU, tried on the CPU with tiny networks."""

import json

import pytest

from benchmarks import gpu
from promptgen.model_files.cards import load_cards

FEW = ["StyleGAN2", "StyleGAN3-T", "R3GAN", "NVAE", "diffusion autoencoder", "StyleNeRF", "embedded world"]


@pytest.mark.long
@pytest.mark.slow
def test_every_network_is_a_row_and_a_failure_is_one_too(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(gpu.CARDS, "StyleGAN2", "stylegan2-lost")
    gpu.main(["--device", "cpu", "--tiny", "--out", str(tmp_path), "--networks", *FEW])
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert [(row["network"], row["precision"]) for row in found["networks"]] == [
        (name, precision) for name in FEW for precision in gpu.PRECISIONS
    ]
    for row in found["networks"]:
        lost = row["network"] == "StyleGAN2"
        assert bool(row["error"]) == lost
        assert lost or min(row["forward"], row["gradient"], row["batch"], row["parameters"]) > 0
    for precision in gpu.PRECISIONS:
        step = found[f"step {precision}"]
        assert step["ratio"] == pytest.approx(step["step"] / (step["flow"] + step["generator"] + step["clip"]))
    assert found["experiment"].get("error") is None
    assert found["experiment"]["seconds"] > 0
    page = (tmp_path / "gpu.md").read_text()
    assert page.count("| StyleNeRF |") == 2
    assert "stylegan2-lost" in page


def test_no_time_left_is_a_row(tmp_path):
    clock = gpu.Clock(end=0.0)
    (single, half) = gpu.measured("StyleGAN3-T", gpu_device(), clock, tiny=True)
    assert "time is up" in single.error
    assert "time is up" in half.error


def gpu_device():
    import torch

    return torch.device("cpu")


def test_there_is_a_card_for_every_network():
    assert set(gpu.CARDS.values()) <= set(load_cards())
