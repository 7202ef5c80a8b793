"""HM-World without a model: schema, cameras, subjects, paths, scenes, events, layout."""
