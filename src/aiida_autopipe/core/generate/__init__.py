"""Structure generators, one module each."""
