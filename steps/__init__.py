"""Thin steps around the library: each reads its parameters and files, calls the library, writes files."""
