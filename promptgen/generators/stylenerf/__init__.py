"""StyleNeRF (Gu et al., 2022)."""
