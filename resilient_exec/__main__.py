"""``python -m resilient_exec``: the command ``resilient-exec``."""

import sys

from resilient_exec.cli import main

if __name__ == "__main__":
    sys.exit(main())
