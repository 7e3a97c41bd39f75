"""Statistics of samples: pure functions on arrays, each estimate with its interval."""
