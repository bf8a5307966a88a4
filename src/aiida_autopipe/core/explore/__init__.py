"""Molecular dynamics with a surrogate at many conditions, and the choice among its frames."""
