"""Published weights and data, brought into the hub's cache; the only room that speaks to a network."""
