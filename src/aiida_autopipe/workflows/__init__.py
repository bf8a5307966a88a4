"""AiiDA work chains."""
