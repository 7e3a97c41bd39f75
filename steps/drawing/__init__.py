"""What `steps.draw` needs to draw from a pass."""
