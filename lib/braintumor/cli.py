"""The command `braintumor`: data, predictions and the app from the command line.

Commands import what they need: pandas or TensorFlow take longer than a prediction.
"""

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from tqdm import tqdm

from braintumor.core import errors
from braintumor.core.errors import DatasetError, ParameterError, require
from braintumor.core.files import ROOT


def main(arguments=None):
    """Run a command and return its exit code; expected errors give one line."""
    args = _build_parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):  # server shutdown, closed terminal
        if signal.getsignal(number) == signal.SIG_DFL:  # not under nohup
            signal.signal(number, signal.default_int_handler)
    try:
        return args.run(args) or 0
    except (DatasetError, ParameterError, OSError) as error:
        print(f"braintumor: {errors.printable(_describe(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nbraintumor: interrupted; finished files are kept", file=sys.stderr)
        return 130


def _describe(error):
    """Return the message of an error; that of an OSError begins with its path."""
    if not (isinstance(error, OSError) and error.filename):
        return str(error)
    problem = f"{error.strerror}. Check the path"
    if isinstance(error, FileExistsError | NotADirectoryError):
        problem = "is a file or in one, expected a folder. Name another"
    return f"{error.filename}: {problem}."


def _folder(text):
    return Path(os.path.expanduser(text))


def _number(low, high):
    """Return a converter of text to a whole number from `low` to `high`."""

    def convert(text):
        if not text.isdecimal() or not low <= int(text) <= high:
            expected = f"a whole number from {low} to {high}"
            raise argparse.ArgumentTypeError(f"got {text}, expected {expected}")
        return int(text)

    return convert


def _build_parser():
    parser = argparse.ArgumentParser("braintumor", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    data = commands.add_parser("data", help="download, check or prepare slices")
    data = data.add_subparsers(required=True, metavar="COMMAND")
    add = _add_command(data, "download", _download, "download figshare's files")
    add("directory", type=_folder)
    add("--base-url", help="mirror with figshare's file ids")
    add = _add_command(data, "check", _check, "report missing and broken files")
    add("directory", type=_folder)
    add = _add_command(data, "phantom", _phantom, "generate the synthetic dataset")
    add("directory", type=_folder)
    add("--patients", type=_number(15, 2000), default=60)
    add("--size", type=_number(64, 1024), default=256, help="pixels per side")
    add("--seed", type=_number(0, 2**31 - 1), default=0)
    add = _add_command(data, "export-png", _export_png, "write PNG files by class")
    add("directory", type=_folder)
    add("out", type=_folder)
    add = _add_command(data, "prepare", _prepare, "scale and resize slices")
    add("data", help='folder of slices, or "phantom"')
    add("--size", type=_number(16, 4096), required=True, help="pixels per side")
    add("--minmax", action="store_true", help="scale from minimum to maximum")
    add = _add_command(commands, "predict", _predict, "classify and segment images")
    add("images", nargs="+", type=_folder, metavar="IMAGE_OR_FOLDER")
    add("--slice", type=int, metavar="N", help="slice, page or frame of a file, from 1")
    text = "use the networks not trained on the patient, of figshare's slices"
    add("--held-out", action="store_true", help=text)
    add("--json", action="store_true", help="print JSON, a line per image")
    add("--out", type=_folder, help="folder for masks, overlays and HTML reports")
    add = _add_command(
        commands, "evaluate", _evaluate, "score networks on other slices"
    )
    add("directory", type=_folder, help="folder of images with a table slices.csv")
    add("--out", type=_folder, help="folder; default: results/external/DIRECTORY")
    add = _add_command(commands, "app", _serve_app, "serve the app on this computer")
    add("--data", default="phantom", help="folder of slices to browse")
    add("--port", type=_number(1, 65535), default=8866)
    return parser


def _add_command(commands, name, run, text):
    command = commands.add_parser(name, help=text)
    command.set_defaults(run=run)
    return command.add_argument


def _download(args):
    from braintumor.data.download import FIGSHARE_URL, download_figshare

    download_figshare(args.directory, args.base_url or FIGSHARE_URL)
    print(f"next: braintumor data check {args.directory}")


def _check(args):
    from braintumor.data.folder import check_folder
    from braintumor.data.prepared import resolve_data

    report = check_folder(resolve_data(str(args.directory)))
    lines = [f"problem  {file}: {text}" for file, text in report["problems"]]
    lines += [f"note     {note}" for note in report["notes"]]
    if numbers := report["missing"]:
        names = errors.shorten(numbers)
        lines.append(f"missing  {len(numbers)} slices of cvind.mat: {names}")
    lines += [f"found    {n} slices: {name}" for name, n in report["found"].items()]
    print(*lines, sep="\n")
    return int(len(report["problems"]) > 0)


def _phantom(args):
    from braintumor.data.phantom import write_phantom

    write_phantom(args.directory, args.patients, args.seed, args.size)


def _export_png(args):
    from braintumor.data.folder import export_png

    print(f"wrote {export_png(args.directory, args.out)} slices to {args.out}")


def _prepare(args):
    from braintumor.data.prepared import open_data
    from braintumor.data.preprocessing import PERCENTILES

    open_data(args.data, args.size, (0, 100) if args.minmax else PERCENTILES)


def _predict(args):
    from braintumor.inference import report
    from braintumor.inference.formats import find_images
    from braintumor.inference.predictor import predict_files

    paths, exit_code = dict.fromkeys(find_images(args.images)), 0
    stems = report.unique_stems(paths)
    _check_out(args.out, args.images)
    print(report.NOTICE, file=sys.stderr)
    if not args.json:
        print(report.HEADER)
    for path, prediction in predict_files(paths, args.slice, args.held_out):
        if isinstance(prediction, DatasetError):
            tqdm.write(f"braintumor: {prediction}", file=sys.stderr)
            exit_code = 1
            continue
        result = {"path": str(path)} | report.to_dict(prediction)
        tqdm.write(json.dumps(result) if args.json else report.format_row(result))
        if args.out:
            report.write_report(prediction, args.out, stems[path])
    return exit_code


def _check_out(out, images):
    folders = [path.resolve() for path in images if path.is_dir()]
    if out and out.exists() and not out.is_dir():
        raise FileExistsError(None, None, out)
    if out and {out.resolve(), *out.resolve().parents} & {*folders}:
        raise ParameterError(
            f"--out: got {out}, expected a folder apart from those of the images. "
            "Name another."
        )


def _evaluate(args):
    from braintumor.inference.report import write_notebook_report

    table = args.directory / "slices.csv"
    remedy = "List the images in it (column image; optional: mask, label, patient)"
    require(table.is_file(), table, "no file", "a table of the images", remedy)
    data = args.directory.resolve()
    out = args.out or Path("results/external") / data.name
    _check_out(out, [data])
    parameters = {"data": str(data), "out": str(out.resolve())}
    notebook = ROOT / "notebooks/report/external.ipynb"
    write_notebook_report(notebook, parameters, out / "report.html")
    print(f"wrote report.html, predictions.csv and scores.csv to {out}")


def _serve_app(args):
    serve = str(ROOT / "app" / "serve.py")
    os.execv(sys.executable, [sys.executable, serve, args.data, str(args.port)])
