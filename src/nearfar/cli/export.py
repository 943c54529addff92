"""``nearfar export``."""

from __future__ import annotations

from pathlib import Path

import click

from nearfar.cli.run_model import load


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="….safetensors, ….pt2 or ….onnx.")
@click.option("--overwrite", is_flag=True, help="Write over a file that is there.")
def command(run: Path, output: Path, overwrite: bool) -> None:
    """Write the model of RUN for others to run; the ending of the file tells the format.

    \b
    nearfar export runs/latest -o model.onnx
    """
    from nearfar.inference import export

    model, _ = load(run, "cpu")
    export(model, output, overwrite=overwrite)
    click.echo(f"wrote {output}")
