"""`python -m ttctune`."""

import sys

from ttctune.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
