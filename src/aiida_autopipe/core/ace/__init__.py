"""Atomic cluster expansion: basis, evaluation, fit, extrapolation grade and files."""
