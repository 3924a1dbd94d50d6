"""`python -m benchmarks.mutation_table --sample 12`: results/mutation.csv, the score of the tests, module by module.

The mutants of each module are shuffled with a fixed seed and the first N are tried, so a larger N goes on where a
smaller one ended; a mutant in the table is not tried again (`--again`: those that survived are). Every mutant meets
the tests that run its line, under a limit of processor time (benchmarks/mutation_in_place.py). Column `judged` is
written by hand: why a survivor changes no result, or which new test kills it. `--show` prints the table's scores.
"""

from __future__ import annotations

import argparse
import csv
import functools
import io
import os
import random
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace

from benchmarks.mutation import ROOT, Mutant, mutants
from benchmarks.mutation_in_place import Session, in_session

TABLE = ROOT / "results" / "mutation.csv"
NEST = ("tests/nest", "tests/pricing/test_cost.py", "tests/pricing/test_systolic.py", "tests/pricing/test_synergy.py")
PRICING = ("tests/pricing", "tests/nest/test_lines.py", "tests/machine/test_energy_laws.py")
FUSION = ("tests/pricing/test_groups.py", "tests/search/test_fusion.py")
UNIT_PRICES = ("tests/pricing/test_cost.py", "tests/pricing/test_formats.py", "tests/pricing/test_shares.py",
               "tests/machine/test_measured.py")  # fmt: skip
RATES = ("tests/pricing/test_rates.py", "tests/pricing/test_kept_weights.py", "tests/pricing/test_interval.py",
         "tests/pricing/test_whole_tiles.py", "tests/pricing/test_pass_sums.py",
         "tests/search/test_passes.py")  # fmt: skip
QUANTIZER = ("tests/quant/test_init.py", "tests/quant/test_functional.py", "tests/quant/test_quantizer.py")
INTEGER = ("tests/integer/test_requantize.py", "tests/integer/test_rules.py", "tests/integer/test_kernels.py",
           "tests/integer/test_lower.py", "tests/integer/test_classes.py", "tests/integer/test_rows.py",
           "tests/integer/test_trained.py")  # fmt: skip
NETWORK = ("tests/network/test_bits.py", "tests/network/test_workload.py")
FRONT_ENDS = ("tests/frontends/test_operators.py", "tests/frontends/test_extract.py", "tests/frontends/test_twins.py",
              "tests/frontends/test_spellings.py", "tests/frontends/test_torch_forms.py",
              "tests/frontends/test_layer_fields.py", "tests/frontends/test_constants.py")  # fmt: skip
SEARCH = ("tests/search/test_results.py", "tests/search/test_search.py", "tests/search/test_any_tiles.py",
          "tests/search/test_padding.py")  # fmt: skip
STORED = (*FRONT_ENDS, "tests/frontends/test_onnx_formats.py", "tests/frontends/test_small_floats.py",
          "tests/frontends/test_onnx_forms.py")  # fmt: skip
HIGH, LOW = 0.90, 0.85


def modules() -> Mapping[str, tuple[Sequence[str], float]]:
    """Module: the tests that must notice, and the score that is asked. In the order in which they are tried."""
    nest = ["nest/counts", "nest/count", "nest/tally", "nest/points", "nest/reuse", "nest/mapping", "nest/legal"]
    first: dict[str, tuple[Sequence[str], float]] = {f"hwsim/{name}.py": (NEST, HIGH) for name in nest}
    first["hwsim/machine/packing.py"] = (("tests/machine/test_packing.py", "tests/pricing/test_cost.py"), HIGH)
    pricing = sorted(path.stem for path in (ROOT / "hwsim" / "pricing").glob("[!_]*.py"))
    first |= {f"hwsim/pricing/{name}.py": (PRICING, HIGH) for name in pricing}
    first |= {f"hwsim/pricing/{name}.py": (FUSION, HIGH) for name in ("fused", "groups", "tiles")}
    first["hwsim/pricing/unit_prices.py"] = (UNIT_PRICES, HIGH)
    rates = ("kept_weights", "rates", "interval", "passes", "shares")
    first |= {f"hwsim/pricing/{name}.py": (RATES, HIGH) for name in rates}
    first |= {f"quant/{name}.py": (QUANTIZER, HIGH) for name in ("quantizer", "init")}
    first |= {f"hwsim/integer/arithmetic/{name}.py": (INTEGER, HIGH) for name in ("requantize", "rules", "fixed_point")}
    first |= {f"hwsim/network/{name}.py": (NETWORK, LOW) for name in ("bits", "bits_file", "layer", "workload")}
    first |= {f"hwsim/search/{name}.py": (SEARCH, LOW) for name in ("result", "beyond", "priced")}
    lowering = sorted((ROOT / "hwsim" / "frontends" / "lowering").rglob("[!_]*.py"))
    first |= {str(path.relative_to(ROOT)): (FRONT_ENDS, LOW) for path in lowering}
    return first | {f"hwsim/frontends/lowering/{name}.py": (STORED, LOW) for name in ("constants", "lower", "written")}


@dataclass(frozen=True)
class Row:
    """One mutant. `outcome`: killed, hang (beyond its processor time: counted as killed), or survived."""

    file: str
    line: int
    mutant: str
    outcome: str
    judged: str = ""


def read_table() -> list[Row]:
    """The rows so far."""
    if not TABLE.exists():
        return []
    with TABLE.open(newline="") as file:
        return [Row(r["file"], int(r["line"]), r["mutant"], r["outcome"], r["judged"]) for r in csv.DictReader(file)]


def write_table(rows: Iterable[Row]) -> None:
    """All rows, in one rename."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(Row)])
    writer.writerows(astuple(row) for row in rows)
    aside = TABLE.with_suffix(".new")
    aside.write_text(text.getvalue())
    aside.replace(TABLE)


def drawn(file: str, sample: int, seed: int) -> list[Mutant]:
    """The first mutants of a module in a shuffled order that depends on the seed and its name alone."""
    found = list(mutants((ROOT / file).read_text()))
    random.Random(f"{seed} {file}").shuffle(found)
    return found[:sample] if sample else found


def try_modules(files: Sequence[str], options: argparse.Namespace, session: Session) -> None:
    """Try what the table lacks (or what survived) of each module, and write each row down."""
    for file in files:
        for mutant in wanted(file, options):
            known = {(row.file, row.line, row.mutant): row for row in read_table()}
            row = known.get((file, mutant.line, mutant.what), Row(file, mutant.line, mutant.what, ""))
            row = replace(row, outcome=session.outcome(mutant, file))
            known.pop((file, mutant.line, mutant.what), None)
            write_table([*known.values(), row])
            if row.outcome == "survived":
                print(f"survived: {file}:{mutant.line}: {mutant.what}", flush=True)


def current(rows: Sequence[Row]) -> list[Row]:
    """The rows whose mutant the module of today still has: a score is never that of code that is gone."""
    have = {file: {(m.line, m.what) for m in mutants((ROOT / file).read_text())} for file in modules()}
    return [row for row in rows if (row.line, row.mutant) in have.get(row.file, ())]


def wanted(file: str, options: argparse.Namespace) -> list[Mutant]:
    """The drawn mutants of a module that are not in the table, or that survived where they are tried `--again`."""
    known = {(row.line, row.mutant): row.outcome for row in read_table() if row.file == file}
    again = ("survived", None) if options.again else (None,)
    return [m for m in drawn(file, options.sample, options.seed) if known.get((m.line, m.what)) in again]


def show() -> int:
    """Scores by module; 1 where one is below its bar.

    A survivor judged `equivalent` (the table says why) changes no result, so no test can notice it: it is shown, and
    counts neither as killed nor as tried.
    """
    rows, below = current(read_table()), 0
    for file, (_, bar) in modules().items():
        here = [row for row in rows if row.file == file]
        if here:
            alive = [row for row in here if row.outcome == "survived"]
            same = sum(row.judged.startswith("equivalent") for row in alive)
            score = 1 - (len(alive) - same) / max(1, len(here) - same)
            below += score < bar
            print(f"{file:45} {len(here):4} tried {len(alive):3} survived ({same} equivalent)  {score:.2f} (bar {bar})")
    alive = [row for row in rows if row.outcome == "survived"]
    same = sum(row.judged.startswith("equivalent") for row in alive)
    score = 1 - (len(alive) - same) / max(1, len(rows) - same)
    print(f"{len(rows)} tried, {len(alive)} survived ({same} equivalent), score {score:.3f}")
    return int(below > 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill the table, or show it."""
    parse = argparse.ArgumentParser(prog="python -m benchmarks.mutation_table", description=__doc__)
    parse.add_argument("--sample", type=int, default=12, help="mutants of each module (0: all)")
    parse.add_argument("--seed", type=int, default=0)
    parse.add_argument("--only", nargs="+", default=[""], help="parts of the modules' names")
    parse.add_argument("--tests", nargs="+", help="instead of those listed here")
    parse.add_argument("--again", action="store_true", help="try survivors again: new tests may kill them")
    parse.add_argument("--show", action="store_true", help="the table's scores; 1 where one is below its bar")
    options = parse.parse_args(arguments)
    if options.show:
        return show()
    os.environ.update({"HWSIM_CACHE": "", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"})
    write_table(current(read_table()))
    files = [file for file in modules() if any(part in file for part in options.only) and wanted(file, options)]
    for tests in dict.fromkeys(tuple(options.tests or modules()[file][0]) for file in files):
        here = [file for file in files if tuple(options.tests or modules()[file][0]) == tests]
        in_session(tests, here, functools.partial(try_modules, here, options))
    return show()


if __name__ == "__main__":
    sys.exit(main())
