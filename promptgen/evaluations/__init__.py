"""Evaluations of images that are kept, and flows that are trained on them."""
