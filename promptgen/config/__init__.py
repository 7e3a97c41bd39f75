"""Configuration: the schema of params.yaml, and how its entries are built."""
