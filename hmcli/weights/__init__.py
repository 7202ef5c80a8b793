"""The weights that ship: a small VAE and a small transformer, trained by this project on its own renders."""
