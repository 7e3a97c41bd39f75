"""Loading: weight files, our own and other people's, read without running their code."""
