"""`python -m oneformer` -> the same as the `oneformer` command."""

import sys

from oneformer.cli import main

if __name__ == "__main__":
    sys.exit(main())
