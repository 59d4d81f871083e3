"""An installation without the extra `report`: training ends with "no report" and takes half the time."""

import sys

sys.modules["matplotlib"] = None  # type: ignore[assignment]
