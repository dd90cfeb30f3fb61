"""`python -m pointsman`: the command of ``pointsman.cli``."""

from pointsman.cli import main

if __name__ == "__main__":
    main(prog_name="pointsman")
