"""`faceattr cache`."""

from __future__ import annotations

from faceattr.cli.options import command

GIGABYTE = 1e9


def add_command(commands) -> None:
    parser = command(commands, cache, "show, bound or empty the cache of crops and features")
    add = parser.add_argument
    add("--cache", metavar="DIR", help="the folder, where `train` was given one")
    add("--max-gb", type=float, metavar="N", help="delete what was used longest ago beyond N GB")
    add("--clear", action="store_true", help="delete all of it")


def cache(cache=None, max_gb=None, clear=False) -> int:
    """Show what training keeps on disk, and delete of it what no running process uses. A later
    run makes again what it needs."""
    from faceattr.data.store import (
        crops_folder,
        delete_oldest,
        features_folder,
        forget_deleted,
        stores_in,
    )

    if max_gb is not None and not max_gb >= 0:
        raise ValueError(f"--max-gb is a number from 0 on. Received: {max_gb}")
    limit = 0 if clear else max_gb
    if limit is not None:
        for path in delete_oldest(stores_in(cache), limit * GIGABYTE):
            print(f"deleted: {path}")
    if clear:
        for folder in (crops_folder(cache), features_folder(cache)):
            forget_deleted(folder, faces=True)
    left = stores_in(cache)
    for path in left:
        print(f"{path.stat().st_size / GIGABYTE:8.2f} GB  {path}")
    print(f"{sum(path.stat().st_size for path in left) / GIGABYTE:8.2f} GB in all")
    return 0
