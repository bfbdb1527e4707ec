"""Where the code that is tested lies."""

import os
from pathlib import Path

CHECKOUT = Path(os.environ.get("BENANA_TEST_CHECKOUT") or Path(__file__).parents[2])
"""What is tested; a broken copy of it, where a test is to be seen failing."""
