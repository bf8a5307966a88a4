"""Surrogates: models that are cheap enough to explore with, by name, file or import path."""
