"""Science on arrays and Atoms: knows no AiiDA, no click, no configuration object."""
