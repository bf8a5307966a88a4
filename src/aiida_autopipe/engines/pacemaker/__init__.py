"""Pacemaker: input.yaml from settings, and what became of a fit from its log and metrics."""
