"""``python -m disttrain``, as launchers start it."""

from disttrain.cli.main import main

if __name__ == "__main__":
    main()
