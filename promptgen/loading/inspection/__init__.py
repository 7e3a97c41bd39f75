"""Identify files without running, extracting or trusting their content."""
