"""`python -m quant.calibrate SOURCE --data cifar10 --bits W4A4`; the function is in `quant.calibration`."""

import sys

from quant.calibration import calibrate, main

if __name__ == "__main__":
    raise SystemExit(main())

# `quant.calibrate` is the function; importing this file must not put a module in its place.
sys.modules[__name__] = calibrate  # type: ignore[assignment]
