"""What networks of all kinds share: frozen weights, their device, finite outputs, and imports that work."""
