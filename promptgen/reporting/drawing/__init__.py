"""Drawing: plots and picture grids of the report."""
