"""`faceattr compare`."""

from __future__ import annotations

from functools import partial

from faceattr.cli.options import add_label_options, command, label_map_of, names, start_keras
from faceattr.cli.recipe import read_recipes
from faceattr.cli.train import add_options, network_of, settings_of


def add_command(commands) -> None:
    parser = command(commands, compare, "train in several ways and compare what comes out")
    add = parser.add_argument
    add(
        "recipes",
        nargs="+",
        metavar="RECIPE",
        help="TOML files of options of `faceattr train`, FILE for all sections or FILE:NAME; the "
        "first one is also trained on each task alone, the baseline",
    )
    add("--on", nargs="+", required=True, metavar="[TASK=]PATH", help="what all are trained on")
    add("--tasks", action="extend", type=names, help="columns to take from bare manifests")
    add("--seeds", type=int, metavar="N", help="how many trainings of each (3)")
    add("-o", "--output", required=True, metavar="TABLE.csv", help="keeps what is finished")
    add("--cache", metavar="DIR", help="folder of the crop cache")
    add_label_options(parser)


def compare(recipes, on, output, tasks=None, cache=None, **given) -> int:
    """Train in every way on the same rows, for the same number of pictures, with several
    seeds. The same command goes on behind what TABLE.csv holds."""
    options = [one for spec in recipes for one in read_recipes(spec, add_options).items()]
    start_keras()
    from faceattr.training.compare import Data, train_apart
    from faceattr.training.compare import compare as run
    from faceattr.training.standings import RunProgress, print_standings

    ways = [_way(name, dict(own)) for name, own in options]
    data = Data(tuple(on), tasks and tuple(tasks), cache, label_map_of(given))
    with RunProgress() as progress:
        given |= {"on_begin": progress.begin, "on_end": progress.end}
        results = run(ways, data, output, perform=partial(train_apart, begin=start_keras), **given)
    print_standings(results)
    return 0


def _way(name: str, given: dict):
    from faceattr.training.compare import Config

    network = network_of(given)
    way = Config(name, network, settings_of(network.phases, given))
    if given:
        raise ValueError(f"Recipe {name!r}: {', '.join(given)} cannot be compared.")
    return way
