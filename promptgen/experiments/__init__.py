"""Ready-made experiments by name, and what running one would take."""
