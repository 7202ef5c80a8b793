"""Folders of clips: opening them, checking, dividing, importing, showing."""
