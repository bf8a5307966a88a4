"""AiiDA calculation jobs and calculation functions."""
