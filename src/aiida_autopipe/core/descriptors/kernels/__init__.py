"""Numba code of the descriptors."""
