"""The mapping network of the StyleGAN families, from the latent z and a class to the style w."""
