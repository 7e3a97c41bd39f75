"""Reading and counting the samples of a pass."""
