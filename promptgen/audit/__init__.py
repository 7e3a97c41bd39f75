"""Audits: shares and distances of images or labels that were made elsewhere."""
