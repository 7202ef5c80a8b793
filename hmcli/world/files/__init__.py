"""HM-World on disk: the layout, schemas, captions and poses of its files, as text and dicts."""
