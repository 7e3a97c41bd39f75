"""Tiny networks of the families of generators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TINY: Mapping[str, Mapping[str, Any]] = {
    "stylegan2": {"size": 16, "latent_dim": 6, "mapping_layers": 2, "channels": {4: 12, 8: 10, 16: 8}},
    "stylegan3": {"size": 16, "latent_dim": 6, "style_dim": 5, "channel_base": 64, "channel_max": 8},
    "r3gan": {"latent_dim": 6, "widths": [12, 12, 8], "groups": [3, 3, 2], "blocks": [1, 2, 1]},
    "biggan": {"size": 128},
    "nvae": {
        "top_size": 2,
        "scales": 2,
        "groups_per_scale": 2,
        "min_groups_per_scale": 1,
        "latent_channels": 3,
        "channels": 4,
        "cells_per_group": 1,
        "mixtures": 2,
    },
    "diffae": {
        "image_size": 8,
        "base_channels": 8,
        "multipliers": [1, 2],
        "encoder_multipliers": [1, 2, 2],
        "residual_blocks": 1,
        "attention_resolutions": [4],
        "embedding": 12,
        "style_channels": 6,
        "latent_network": {"layers": 3, "width": 16, "time_channels": 4},
    },
    "stylenerf": {
        "image_size": 16,
        "latent_dim": 6,
        "style_dim": 5,
        "mapping_layers": 2,
        "foreground": {"width": 8, "layers": 3, "octaves": 4},
        "background": {"width": 4, "layers": 2, "octaves": 3},
        "background_dim": 3,
        "feature_channels": 6,
        "volume_size": 4,
        "channel_base": 2**-8,
        "channel_max": 12,
        "ray_samples": 6,
    },
}
"""Arguments of tiny networks by the type of their card; networks of other types are measured as they are."""
