"""Small networks shipped for metrics."""
