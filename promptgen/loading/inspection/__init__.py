"""What a file is, found without running, extracting or believing anything in it."""
