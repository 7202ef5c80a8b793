"""Parts of an artifact: joining them, and making them on a cluster."""
