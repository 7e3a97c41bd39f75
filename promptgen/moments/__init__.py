"""Moments: fitting and adjusting the multipliers of a constraint on class shares."""
