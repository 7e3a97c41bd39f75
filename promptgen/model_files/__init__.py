"""Model files: cards, downloads and checksums. Imports no torch."""
