"""The test suite. What has to be settled before anything else is imported is settled here."""

import os
from pathlib import Path

# Triton reads it when it is first imported, which PyTorch may do. Python then computes what a GPU
# would, where there is none.
if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"
