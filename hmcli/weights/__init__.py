"""The weights that ship with the package: a small VAE and a small transformer, trained by this project on its renders."""
