"""hm play: a walk through a generated world, and the page that shows it."""
