"""Tools behind the notebooks that use and reproduce RadioDINO."""

import os
import sys

__version__ = "0.1.0"

# no telemetry: OpenVINO takes its own stub where this package cannot be imported, and the Hub's
# client reads the variable
sys.modules["openvino_telemetry"] = None
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
