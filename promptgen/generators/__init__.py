"""Frozen image generators behind one protocol, a folder for each family.

Layers take `fan_in` channels or features to `fan_out`, and draw their initial weights from the stream `rng`.
"""
