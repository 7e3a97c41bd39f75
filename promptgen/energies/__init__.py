"""Control energies, nats: low for the samples that are wanted."""
