"""The report model and its self-contained HTML page."""
