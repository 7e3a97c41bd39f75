"""Labelling the image files of an audit."""
