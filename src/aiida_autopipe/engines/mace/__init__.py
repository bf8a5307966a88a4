"""MACE: settings and labels to the input of `mace_run_train`, what it wrote to values."""
