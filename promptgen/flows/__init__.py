"""Flows: the invertible network, its objective, its training, and sampling through it."""
