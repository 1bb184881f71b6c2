"""Serve a study storage to workers that reach this machine, but not the database.

    python -m search.storage_proxy storage=postgresql://USER:PASSWORD@HOST/NAME port=13000

Workers join with `storage=grpc://THIS_MACHINE:13000`. Options, each KEY=VALUE:
    storage    a database's URL (Optuna serves no journal files)
    host       address to listen on (default: localhost; 0.0.0.0 for other machines)
    port       (default: 13000)

The proxy asks nobody for a password: open it to a private network only.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from hybridsim.errors import HybridsimError, unknown
from search.study import JOURNAL, open_storage, shown_storage

DEFAULTS = {"storage": "", "host": "localhost", "port": "13000"}


def parse_options(arguments: list[str]) -> dict[str, str]:
    """Return the options of a command line; HybridsimError for anything wrong."""
    given = dict(DEFAULTS)
    for argument in arguments:
        key, separator, value = argument.partition("=")
        if not separator or key not in DEFAULTS:
            raise unknown("option", argument, DEFAULTS, "option")
        given[key] = value
    if "://" not in given["storage"] or given["storage"].startswith("grpc://"):
        raise HybridsimError(f"storage={given['storage']}: give the URL of a database")
    if not given["port"].isdigit():
        raise HybridsimError(f"port={given['port']}: must be a number")
    return given


def serve(storage: str, host: str, port: int) -> None:
    """Answer until the process is ended.

    Raises:
        HybridsimError: the database cannot be reached, or a package is missing.
    """
    from optuna.exceptions import ExperimentalWarning
    from optuna.storages import get_storage, run_grpc_proxy_server

    opened = get_storage(open_storage(storage, Path()))
    shown = shown_storage(storage, Path(JOURNAL))
    print(f"{shown} is served at grpc://{host}:{port}", file=sys.stderr, flush=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        run_grpc_proxy_server(opened, host=host, port=port)


def main() -> None:
    """Run the proxy."""
    arguments = sys.argv[1:]
    if arguments in (["--help"], ["-h"]):
        print(__doc__)
        return
    try:
        options = parse_options(arguments)
        serve(options["storage"], options["host"], int(options["port"]))
    except HybridsimError as error:
        sys.exit(f"storage_proxy: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
