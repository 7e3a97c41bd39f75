"""The methods, a file each; `benchmarks.registry` lists them."""
