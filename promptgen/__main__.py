"""`python -m promptgen COMMAND`: the same as `promptgen COMMAND`."""

import sys

from promptgen.command_line import main

if __name__ == "__main__":
    sys.exit(main())
