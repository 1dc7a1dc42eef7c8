"""Run `python -m radiodino_utils`: the command `radiodino`."""

from .cli import main

if __name__ == "__main__":
    main()
