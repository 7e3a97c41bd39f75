"""Control energies: what a sample should be like, in nats."""
