"""The tests of Uplift."""

import os
import sys

# Hundreds of processes start. Each would compile its modules for seconds, if this machine's
# environment forbids to keep what is compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
