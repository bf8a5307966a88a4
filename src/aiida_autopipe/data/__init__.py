"""AiiDA data nodes."""
