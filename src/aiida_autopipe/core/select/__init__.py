"""Selection of the most informative structures from a pool."""
