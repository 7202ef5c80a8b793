"""Files of tensors as people have them: read without running code, whatever is wrapped around the tensors.

Rooms that read weights (store, codecs) share this; nothing here knows a model.
"""
