"""Quantum ESPRESSO."""
