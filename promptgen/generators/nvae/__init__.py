"""NVAE (Vahdat and Kautz, 2020)."""
