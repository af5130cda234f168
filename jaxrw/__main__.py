"""The command `jaxrw`, which is also `python -m jaxrw`: what launch.py does, from the installed package."""

import sys

from jaxrw.system.errors import print_unraisable


def main() -> int:
    """Runs the command line of this process and returns its exit status, see `jaxrw.main.main`."""
    sys.unraisablehook = print_unraisable
    try:
        from jaxrw.main import main
    except ModuleNotFoundError as error:
        if (error.name or "jaxrw").startswith("jaxrw"):
            raise
        print(
            f"jaxrw: training needs {error.name}; install it with pip install -e '.[train]' in the repository",
            file=sys.stderr,
        )
        return 2
    sys.argv[0] = "jaxrw"  # Not __main__.py, since messages begin with it.
    return main(sys.argv)


if __name__ == "__main__":
    sys.exit(main())
