"""``nearfar calibrate``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("calibrate")
@click.argument("embeddings", type=click.Path(path_type=Path))
@click.option("--far", type=float, default=1e-3, show_default=True, help="The false-accept rate wanted.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="A JSON file for `verify`.")
def command(embeddings: Path, far: float, output: Path) -> None:
    """Find the threshold that accepts at most a share of impostors, on EMBEDDINGS of images in a folder an identity.

    \b
    nearfar embed runs/latest people/ -o people.parquet
    nearfar calibrate people.parquet --far 0.001 -o threshold.json
    """
    import torch

    from nearfar.errors import ConfigError
    from nearfar.inference import calibrate, read_embeddings

    if output.exists():
        raise ConfigError(f"{output} is there already: give another name")
    found = read_embeddings(embeddings)
    number = {name: place for place, name in enumerate(dict.fromkeys(found.folders))}
    labels = torch.tensor([number[name] for name in found.folders])
    model, flip = (str(found.about.get(key, default)) for key, default in (("weights", ""), ("flip", "none")))
    made = calibrate(found.vectors, labels, far, model=model, flip=flip)
    made.write(output)
    accepts = f"accepts {100 * made.tar:.1f}% of {made.genuine} genuine pairs"
    click.echo(f"threshold {made.threshold:.4f}: {accepts}", nl=False)
    if made.interval is not None:
        click.echo(f" (95%: {100 * made.interval[0]:.1f} to {100 * made.interval[1]:.1f})", nl=False)
    click.echo(f" and {made.far:.2g} of {made.impostors} impostor pairs")
    click.echo(f"wrote {output}")
