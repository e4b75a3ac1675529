"""The command `braintumor`: its words, and what each of them calls."""

import argparse
import signal
import sys
from pathlib import Path

from braintumor.core.errors import DatasetError, LeakageError, ParameterError, printable


def main(arguments=None):
    """Run the command; returns the exit code. Foreseen errors end in one sentence, without a traceback."""
    args = _parser().parse_args(arguments)
    for name in (signal.SIGTERM, signal.SIGHUP):  # of a server that shuts down, of a terminal that is closed
        if signal.getsignal(name) == signal.SIG_DFL:  # not so under nohup
            signal.signal(name, signal.default_int_handler)
    try:
        return args.call(args) or 0
    except (DatasetError, LeakageError, ParameterError, OSError) as error:
        print(f"braintumor: {printable(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nbraintumor: stopped; what was finished is kept, the same command goes on from there", file=sys.stderr)
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

    word = words.add_parser("predict", help="name and outline the tumor on images; for research and teaching only")
    word.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="files, or folders of them")
    word.add_argument("--slice", type=int, metavar="N", help="of a volume (from 1), or a page or frame")
    word.add_argument("--held-out", action="store_true", help="figshare's .mat: ask the network that never saw it")
    word.add_argument("--json", action="store_true", help="print JSON, a line an image, in place of a table")
    word.add_argument("--out", type=Path, metavar="DIR", help="write mask, overlay and a page of HTML of each image")
    word.set_defaults(call=_predict)

    word = words.add_parser("run", help="run a profile's notebooks and build the book; only what is missing or changed")
    word.add_argument("--profile", default="quick", help="a file of config/, without .yaml (default quick)")
    word.add_argument("--data", default="phantom", help="a folder of slices (default: the phantom)")
    word.add_argument("--cores", type=int, default=2)
    word.add_argument("--cluster", help="a folder of profiles/, such as slurm: run as jobs of a cluster")
    word.add_argument("--dry-run", action="store_true", help="only say what would be trained, and about how long")
    word.set_defaults(call=_run)

    word = words.add_parser("app", help="serve the app on this computer: ask about images and slices in a browser")
    word.add_argument("--data", default="phantom", help="a folder of slices to browse (default: the phantom)")
    word.add_argument("--port", type=int, default=8866)
    word.set_defaults(call=_app)
    return parser


def _download(args):
    from braintumor.data.download import FIGSHARE, download

    download(args.dir, base_url=args.base_url or FIGSHARE)
    print(f"next: braintumor data check {args.dir}")


def _check(args):
    from braintumor.data import prepared as dataset

    report = dataset.check(args.dir)
    for file, fault in report["faults"]:
        print(printable(f"broken   {file}: {fault}"))
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
    from braintumor.data.phantom import write_phantom

    write_phantom(args.dir, patients=args.patients, seed=args.seed, size=args.size)


def _export(args):
    from braintumor.data import prepared as dataset

    print(f"wrote {dataset.export_png(args.dir, args.out)} slices to {args.out}")


def _predict(args):
    import json

    from tqdm import tqdm

    from braintumor.data.formats import find
    from braintumor.inference import predictor as inference
    from braintumor.inference import report

    paths, faults = find(args.images), 0
    if args.out:
        if any(folder.is_dir() and args.out.resolve().is_relative_to(folder.resolve()) for folder in args.images):
            raise ParameterError(f"--out {args.out} lies in a folder of images, and would be read as images next time")
        args.out.mkdir(parents=True, exist_ok=True)
    stems = report.stems(dict.fromkeys(paths))
    print(report.NOTICE, file=sys.stderr)
    if not args.json:
        print(report.HEADER)
    for path, answer in inference.answers(paths, args.slice, args.held_out):
        if isinstance(answer, DatasetError):
            tqdm.write(f"braintumor: {answer}", file=sys.stderr)
            faults += 1
            continue
        facts = {"path": str(path)} | report.facts(answer)
        tqdm.write(json.dumps(facts) if args.json else report.line(answer))
        if args.out:
            report.write(answer, args.out, stems[path])
    return 1 if faults else 0


def _run(args):
    from braintumor.core.files import ROOT
    from braintumor.workflow_engine.execution import run

    if args.cores < 1:
        raise ParameterError(f"--cores is {args.cores}; expected 1 or more")
    cluster = ROOT / "profiles" / args.cluster if args.cluster else None
    if cluster and not (cluster / "config.yaml").exists():
        known = ", ".join(sorted(path.parent.name for path in (ROOT / "profiles").glob("*/config.yaml")))
        raise ParameterError(f"{cluster}: holds no profile of a cluster (config.yaml); there are {known}")
    profile = ROOT / "config" / f"{args.profile}.yaml"
    if args.dry_run:
        from braintumor.workflow_engine.estimate import dry_run

        print(dry_run(profile, args.data, args.cores))
        return
    index = run(profile, args.data, args.cores, cluster)
    print(f"The book is ready: open {index}")


def _app(args):
    from braintumor.app_page.server import serve

    serve(args.data if args.data == "phantom" else str(Path(args.data).expanduser().resolve()), args.port)


if __name__ == "__main__":
    sys.exit(main())
