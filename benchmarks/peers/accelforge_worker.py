"""Runs in a Python that has accelforge (PyPI, Python 3.12): least energy of its joined mappings, fused and not.

Standard input: {"arch": path, "workload": path, "buffer_bits": n}; standard output: {"fused": [value, CPU seconds],
"layer by layer": [value, CPU seconds]}. The join's own value is taken: drawing a joined mapping fails in 1.0.467 for
some shapes, and the value does not need it.
"""

import contextlib
import io
import json
import sys
import time

import accelforge as af
from accelforge.frontend.spec import Spec
from accelforge.mapper import Metrics
from accelforge.mapper.FFM.main import map_workload_to_arch


def main() -> None:
    """Answer one question."""
    af.set_n_parallel_jobs(1)
    asked = json.load(sys.stdin)
    found = {}
    for way in ("fused", "layer by layer"):
        spec = Spec.from_yaml(asked["arch"], asked["workload"], jinja_parse_data={"BUFFER_BITS": asked["buffer_bits"]})
        spec.mapper.metrics = Metrics.ENERGY
        if way == "layer by layer":
            spec.arch["MainMemory"].tensors.keep = "All"
        began = time.process_time()
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                result = map_workload_to_arch(spec, eval_in_detail=False, print_progress=False)
            value = min(float(v) for v in result.data["Total<SEP>energy"])
        except Exception as problem:  # what a peer cannot map is a row without a value
            print(f"{way}: {type(problem).__name__}: {problem}", file=sys.stderr)
            value = None
        found[way] = [value, round(time.process_time() - began, 1)]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
