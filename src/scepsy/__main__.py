"""``python -m scepsy``: the command line without the installed script."""

from scepsy.cli.main import main

if __name__ == "__main__":
    main()
