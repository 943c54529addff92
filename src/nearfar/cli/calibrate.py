"""``nearfar calibrate``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("calibrate")
@click.argument("embeddings", type=click.Path(path_type=Path))
@click.option("--far", type=float, default=1e-3, show_default=True, help="The false-accept rate wanted.")
@click.option(
    "--labels", type=click.Path(path_type=Path), metavar="TABLE", help="Who is on each image: columns path and label."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="A JSON file for `verify`.")
def command(embeddings: Path, far: float, labels: Path | None, output: Path) -> None:
    """Find the threshold that accepts at most a share of impostors, on EMBEDDINGS of labelled images.

    Without a table, the name of the folder that an image is in is its identity.

    \b
    nearfar embed runs/latest people/ -o people.parquet
    nearfar calibrate people.parquet --far 0.001 -o threshold.json
    """
    import warnings

    import torch

    from nearfar.data.tables import labels_of
    from nearfar.errors import ConfigError, NearfarWarning
    from nearfar.inference import calibrate, read_embeddings

    if output.exists():
        raise ConfigError(f"{output} is there already: give another name")
    found = read_embeddings(embeddings)
    names = found.folders if labels is None else labels_of(labels, found.paths)
    if labels is None and (scattered := found.scattered()):
        warnings.warn(
            f"{len(scattered)} folders of one name are in several places, first {scattered[0]!r}, and are taken for "
            "one identity: where they are not, give --labels TABLE",
            NearfarWarning,
            stacklevel=1,
        )
    number = {name: place for place, name in enumerate(dict.fromkeys(names))}
    identities = torch.tensor([number[name] for name in names])
    model, flip = (str(found.about.get(key, default)) for key, default in (("weights", ""), ("flip", "none")))
    made = calibrate(found.vectors, identities, far, model=model, flip=flip)
    made.write(output)
    accepts = f"accepts {100 * made.tar:.1f}% of {made.genuine} genuine pairs"
    click.echo(f"threshold {made.threshold:.4f}: {accepts}", nl=False)
    if made.interval is not None:
        click.echo(f" (95%: {100 * made.interval[0]:.1f} to {100 * made.interval[1]:.1f})", nl=False)
    click.echo(f" and {made.far:.2g} of {made.impostors} impostor pairs of {len(number)} identities")
    click.echo(f"wrote {output}")
