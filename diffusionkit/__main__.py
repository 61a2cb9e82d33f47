"""`python -m diffusionkit` is `diffusionkit`."""

from diffusionkit.cli import main

if __name__ == "__main__":
    main()
