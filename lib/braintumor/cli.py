"""The command `braintumor`: its words, and what each of them calls."""

import argparse
import sys
from pathlib import Path

from braintumor import dataset
from braintumor.errors import DatasetError, LeakageError, ParameterError


def main(arguments=None):
    """Run the command; returns the exit code. Foreseen errors end in one sentence, without a traceback."""
    args = _parser().parse_args(arguments)
    try:
        return args.call(args) or 0
    except (DatasetError, LeakageError, ParameterError, FileExistsError) as error:
        print(f"braintumor: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nbraintumor: stopped; the same command goes on from here", file=sys.stderr)
        return 130


def _parser():
    parser = argparse.ArgumentParser(prog="braintumor", description="The brain tumor study from the command line.")
    words = parser.add_subparsers(required=True, metavar="COMMAND")

    data = words.add_parser("data", help="fetch, check, draw or export slices").add_subparsers(required=True)
    word = data.add_parser("download", help="fetch figshare's files into DIR, checked by MD5; goes on where it stopped")
    word.add_argument("dir", type=Path)
    word.add_argument("--base-url", help="fetch from a mirror that serves figshare's file ids below this address")
    word.set_defaults(call=_download)
    word = data.add_parser("check", help="say what is there, missing and broken in DIR, file by file")
    word.add_argument("dir", type=Path)
    word.set_defaults(call=_check)
    word = data.add_parser("phantom", help="draw the synthetic dataset into DIR, in figshare's layout")
    word.add_argument("dir", type=Path)
    word.add_argument("--patients", type=int, default=60)
    word.add_argument("--size", type=int, default=512, help="pixels a side (default 512)")
    word.add_argument("--seed", type=int, default=0)
    word.set_defaults(call=_phantom)
    word = data.add_parser("export-png", help="write OUT/LABEL/N.matlabel=LABEL.png, as the original study did")
    word.add_argument("dir", type=Path)
    word.add_argument("out", type=Path)
    word.set_defaults(call=_export)

    word = words.add_parser("run", help="run a profile's notebooks and build the book; only what is missing or changed")
    word.add_argument("--profile", default="quick", help="a file of config/, without .yaml (default quick)")
    word.add_argument("--data", default="phantom", help="a folder of slices (default: the phantom)")
    word.add_argument("--cores", type=int, default=2)
    word.set_defaults(call=_run)
    return parser


def _download(args):
    from braintumor.download import FIGSHARE, download

    download(args.dir, base_url=args.base_url or FIGSHARE)
    print(f"next: braintumor data check {args.dir}")


def _check(args):
    report = dataset.check(args.dir)
    for file, fault in report["faults"]:
        print(f"broken   {file}: {fault}")
    if report["missing"]:
        print(f"missing  {len(report['missing'])} of the numbers that cvind.mat covers: {_ranges(report['missing'])}")
    for note in report["notes"]:
        print(f"note     {note}")
    found = ", ".join(f"{count} {name}" for name, count in report["found"].items())
    print(f"found    {sum(report['found'].values())} readable slices: {found or 'none'}")
    return 1 if report["faults"] else 0


def _ranges(numbers):
    """1, 2, 3, 7 as 1-3, 7."""
    runs = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _phantom(args):
    from braintumor.phantom import write_phantom

    write_phantom(args.dir, patients=args.patients, seed=args.seed, size=args.size)


def _export(args):
    print(f"wrote {dataset.export_png(args.dir, args.out)} slices to {args.out}")


def _run(args):
    from braintumor.execution import run
    from braintumor.files import ROOT

    index = run(ROOT / "config" / f"{args.profile}.yaml", args.data, args.cores)
    print(f"The book is ready: open {index}")


if __name__ == "__main__":
    sys.exit(main())
