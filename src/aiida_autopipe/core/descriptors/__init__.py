"""Descriptors: numbers that say what the surroundings of each atom look like."""
