"""Files of structures, read and written frame by frame."""
