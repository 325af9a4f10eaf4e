"""``python -m lifecycle.testing`` runs simulated worlds."""

import sys

from lifecycle.testing.simulation.random_run import main

sys.exit(main())
