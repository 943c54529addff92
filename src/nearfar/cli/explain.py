"""``nearfar explain``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from nearfar.cli.written_recipe import read_recipe, recipes_and_files


@click.command("explain")
@click.argument("recipe", shell_complete=recipes_and_files)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Draw it as OUTPUT.png and OUTPUT.svg.")
@click.option("--overwrite", is_flag=True, help="Write over figures that are there.")
@click.option("--classes", type=click.IntRange(2), default=4, show_default=True, help="Of the batch that is drawn.")
@click.option("--per-class", type=click.IntRange(2), default=4, show_default=True, help="Of the batch that is drawn.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of everything random.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(
    recipe: str, output: Path | None, overwrite: bool, classes: int, per_class: int, seed: int, as_json: bool
) -> None:
    """Say what the weights that RECIPE, a loss and maybe a miner, or its YAML file, gives to pairs answer to.

    \b
    nearfar explain multi_similarity
    nearfar explain "triplet(miner=semihard)" -o weights
    """
    from nearfar.figures import require_free, require_matplotlib

    if output is not None:  # before anything is computed
        require_matplotlib("drawing weights")
        require_free([output], overwrite=overwrite)
    from nearfar.explain import draw, responses
    from nearfar.explain.responses import KINDS
    from nearfar.figures import save

    read = read_recipe(recipe)
    found = responses(read, seed=seed)
    if as_json:
        pairs = {"negative": found.negative, "positive": found.positive}
        click.echo(json.dumps({name: [kind for kind in KINDS if kind in answers] for name, answers in pairs.items()}))
    else:
        click.echo(f"{read}\n\nThe weight ∂L/∂S of a pair changes with")
        click.echo(f"{'':15}{'its own':>12}{'positive':>12}{'negative':>12}  similarities")
        for name, answers in (("negative pair", found.negative), ("positive pair", found.positive)):
            cells = "".join(f"{'yes' if kind in answers else '–':>12}" for kind in KINDS)
            click.echo(f"{name:15}{cells}")
    if output is not None:
        for path in save(draw(read, classes=classes, per_class=per_class, seed=seed), output, overwrite=overwrite):
            click.echo(f"wrote {path}", err=as_json)
