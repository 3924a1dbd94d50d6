"""`python -m hwsim.explore`: the command line, in `command.py`."""

import sys

from hwsim.explore.command import main

if __name__ == "__main__":
    sys.exit(main())
