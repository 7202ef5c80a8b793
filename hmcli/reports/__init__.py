"""Tables, plots and contact sheets, from artifacts alone."""
