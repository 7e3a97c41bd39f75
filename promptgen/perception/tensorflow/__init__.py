"""Networks in TensorFlow.js's graph format, run as torch modules."""
