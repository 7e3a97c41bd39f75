"""Commands: how they read arguments and end, and those that the library has by itself."""
