"""Flows: the invertible network, its training objective, its training, and sampling from it."""
