"""Feature networks that consistency metrics compare by, behind one contract."""
