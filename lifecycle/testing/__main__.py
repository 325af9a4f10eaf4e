"""``python -m lifecycle.testing`` runs simulated worlds."""

import sys

from lifecycle.testing.chaos import main

sys.exit(main())
