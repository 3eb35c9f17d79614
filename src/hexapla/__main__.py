"""`python -m hexapla` is the program `hexapla`."""

from hexapla.cli.app import main

if __name__ == "__main__":
    main()
