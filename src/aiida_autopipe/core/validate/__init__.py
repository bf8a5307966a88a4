"""Physical properties of a potential, computed through any ASE calculator."""
