"""Run simulated worlds: ``python -m lifecycle.testing``."""

import sys

from lifecycle.testing.simulation.random_run import main

sys.exit(main())
