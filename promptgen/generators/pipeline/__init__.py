"""Latent diffusion pipelines of diffusers."""
