"""Frozen image generators behind one protocol."""
