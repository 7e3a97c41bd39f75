"""Read weight files, own and published ones, without running code from them."""
