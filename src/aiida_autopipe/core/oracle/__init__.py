"""Labels from any ASE calculator: settings, the job's own programs, and what they leave behind."""
