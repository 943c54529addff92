"""``nearfar search``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from nearfar.cli.run_model import device_option, load


@click.command("search")
@click.argument("embeddings", type=click.Path(path_type=Path))
@click.argument("queries", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--run", type=click.Path(path_type=Path), help="The model, where QUERIES are images.")
@click.option("--index", type=click.Path(path_type=Path), help="A file that makes searches of large galleries fast.")
@click.option("-k", type=click.IntRange(1), default=5, show_default=True, help="How many for each.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@device_option
def command(
    embeddings: Path,
    queries: tuple[Path, ...],
    run: Path | None,
    index: Path | None,
    k: int,
    as_json: bool,
    device: str,
) -> None:
    """Find in EMBEDDINGS, a file of `nearfar embed`, the images nearest to QUERIES by cosine.

    QUERIES are images, for which the model is needed, or one other file of embeddings. With --index not all of
    EMBEDDINGS are looked at, and a neighbour may be missed; the file is made where there is none.

    \b
    nearfar search photos.parquet query.jpg --run runs/latest
    nearfar search gallery.parquet probes.parquet -k 10 --json
    nearfar search gallery.parquet probes.parquet --index gallery.faiss
    """
    from nearfar.errors import ConfigError
    from nearfar.evaluate import nearest
    from nearfar.inference import read_embeddings
    from nearfar.inference.queries import of_images, same_space
    from nearfar.inference.store import STORES

    gallery = read_embeddings(embeddings)
    if len(queries) == 1 and queries[0].suffix in STORES:
        asked = read_embeddings(queries[0])
        same_space(gallery, asked, f"{embeddings} and {queries[0]}")
    elif run is None:
        raise ConfigError("to search for images, their model is needed: give --run")
    else:
        model, where = load(run, device)
        asked = of_images(model, queries, gallery, device=where)
    k = min(k, len(gallery))
    if index is None:
        similarities, found = nearest(asked.vectors, gallery.vectors, k)
    else:
        from nearfar.inference.index import Index

        similarities, found = Index(index, gallery).search(asked.vectors, k)
    rows = [
        {
            "query": path,
            "found": [[gallery.paths[int(at)], float(s)] for s, at in zip(near, places, strict=True) if at >= 0],
        }
        for path, near, places in zip(asked.paths, similarities, found, strict=True)
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        click.echo(row["query"])
        for path, similarity in row["found"]:
            click.echo(f"  {similarity:.4f}  {path}")
