"""The test suite. A package, because mace-torch installs one of the same name."""
