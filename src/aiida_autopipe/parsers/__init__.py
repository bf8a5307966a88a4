"""AiiDA parsers of the calculation jobs."""
