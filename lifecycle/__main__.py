"""``python -m lifecycle`` is the command line, too."""

from lifecycle.consumer.cli.main import main

if __name__ == "__main__":
    main()
