"""`python -m dartboard`: the `dartboard` command."""

import sys

from dartboard.cli import main

sys.exit(main())
