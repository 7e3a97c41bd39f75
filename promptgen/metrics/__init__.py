"""Statistics of samples: pure functions on arrays, which return estimates with their intervals."""
