"""Videos to latents and back, and the artifact that holds them."""
