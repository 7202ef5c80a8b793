"""What stages of several rooms share."""
