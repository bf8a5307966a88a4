"""Foreign programs: settings to input text, output text to values; no AiiDA."""
