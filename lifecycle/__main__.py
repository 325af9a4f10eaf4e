"""The command line, as ``python -m lifecycle``.

``python -m`` puts the current folder first on the module path, where a `queue.py` of the user's replaces the standard
library's. So the folder leaves the path here, as with ``python -P -m lifecycle``, before the command line is imported.
`lifecycle.consumer.loading` puts the folder back, at another place, for the commands that need the user's modules.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    first = Path(sys.path[0])
    if not sys.flags.safe_path and first.is_dir() and first.samefile("."):
        del sys.path[0]

    from lifecycle.consumer.cli.main import main

    main()
