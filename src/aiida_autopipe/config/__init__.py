"""Pydantic models of the input and the expansion of material and goal into a full configuration."""
