"""Weights of other libraries: folders in the format of diffusers, read into our networks and written from them."""
