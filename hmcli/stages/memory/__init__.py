"""The memory artifact: slots of clips described, their keys and values kept, read back."""
