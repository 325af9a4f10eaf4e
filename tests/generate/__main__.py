"""``python tests/generate`` makes the pictures anew, and the generated parts of all pages."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from generate import pages, pictures

pictures.write()
pages.write()
