"""``nearfar embed``."""

from __future__ import annotations

from pathlib import Path

import click

from nearfar.cli.run_model import device_option, load


@click.command("embed")
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
@click.argument("images", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="….parquet or ….safetensors.")
@click.option("--flip", type=click.Choice(["none", "sum", "concatenate"]), default="none", help="Of mirror images.")
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True, help="Images at once.")
@click.option("--workers", type=click.IntRange(0), default=0, show_default=True, help="Processes that load images.")
@click.option("--overwrite", is_flag=True, help="Write over a file that is there.")
@device_option
def command(
    run: Path,
    images: tuple[Path, ...],
    output: Path,
    flip: str,
    batch_size: int,
    workers: int,
    overwrite: bool,
    device: str,
) -> None:
    """Embed IMAGES, files or folders, with the model of RUN; a run that dies goes on when called again.

    \b
    nearfar embed runs/latest photos/ -o photos.parquet
    """
    from rich.progress import Progress

    from nearfar.inference import embed_files, list_images
    from nearfar.inference.store import check_store

    check_store(output)
    paths = list_images(images)
    model, where = load(run, device)
    with Progress(transient=True) as bar:
        task = bar.add_task("embedding", total=len(paths))
        embed_files(
            model,
            paths,
            output,
            flip=flip,  # type: ignore[arg-type]  # click has checked it
            batch_size=batch_size,
            workers=workers,
            device=where,
            name=str(run),
            overwrite=overwrite,
            progress=lambda done, _: bar.update(task, completed=done),
        )
    size = model.embedding_size * (2 if flip == "concatenate" else 1)
    click.echo(f"wrote {output}: {len(paths)} embeddings of {size} numbers")
