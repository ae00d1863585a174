"""`python -m c2c_lightning` is the same as `lightning`."""

from c2c_lightning.cli import main

if __name__ == "__main__":
    main()
