"""BigGAN (Brock et al., 2019), as PyTorch-pretrained-BigGAN publishes it."""
