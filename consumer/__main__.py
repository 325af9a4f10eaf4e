"""``python -m consumer`` is the command line, too."""

from consumer.cli import main

if __name__ == "__main__":
    main()
