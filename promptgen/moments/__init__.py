"""Moments: the multipliers of a constraint on class shares."""
