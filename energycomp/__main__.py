"""`python -m energycomp`, and `accelerate launch -m energycomp train ...`."""

from energycomp.cli.app import main

if __name__ == "__main__":
    main()
