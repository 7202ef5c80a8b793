"""Scoring generated videos."""
