"""`python -m faceattr` is the command `faceattr`."""

import sys

from faceattr.cli import main

sys.exit(main())
