"""A study: a name, a folder, a storage. Opening one again goes on where it stopped."""

from __future__ import annotations

import errno
import json
import os
import re
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridsim.errors import HybridsimError, bad_value

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage

STUDIES_VARIABLE = "HYBRIDSIM_STUDIES"
STUDIES = "outputs/studies"
JOURNAL = "study.journal"
REACHED_S = 20.0  # within which a storage proxy has to answer
_STORAGE = re.compile(r".+\.journal|[\w+]+://.*")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


def studies_folder() -> Path:
    """Return the folder of all studies: HYBRIDSIM_STUDIES, or outputs/studies."""
    return Path(os.environ.get(STUDIES_VARIABLE) or STUDIES)


def study_folder(name: str) -> Path:
    """Return the folder of a study, which need not be there.

    Raises:
        SpecError: the name cannot be a folder's.
    """
    if not _NAME.fullmatch(name):
        raise bad_value("study", name, "must be letters, digits, '.', '_' and '-'")
    return studies_folder() / name


def open_storage(storage: str | None, folder: Path, **options: Any) -> BaseStorage:
    """Return the storage of a study.

    Args:
        storage: None for the journal file in the study's folder; the path of another journal file
            (ends in .journal); `grpc://HOST:PORT` of Optuna's storage proxy; or a database's URL
            (`postgresql://USER:PASSWORD@HOST/NAME`, `sqlite:///FILE`).
        folder: of the study; made where it is missing.
        **options: for a database, of optuna.storages.RDBStorage (heartbeats, retries).

    Raises:
        HybridsimError: the storage cannot be reached, read or written.
    """
    shown = shown_storage(storage, folder)
    if storage is not None and not _STORAGE.fullmatch(storage):
        raise bad_value(
            "storage", storage, "must be FILE.journal, grpc://HOST:PORT or a database's URL"
        )
    with file_errors(shown), storage_errors(shown):
        if storage is None or storage.endswith(".journal"):
            folder.mkdir(parents=True, exist_ok=True)
            return _journal(folder / JOURNAL if storage is None else Path(storage).expanduser())
        if storage.startswith("grpc://"):
            return _proxy(storage)
        return _database(storage, options)


def shown_storage(storage: str | None, folder: Path) -> str:
    """Return how messages and records call a storage: without its password."""
    if storage is None:
        return str(folder / JOURNAL)
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", storage)


def _journal(path: Path) -> BaseStorage:
    from optuna.storages import JournalStorage

    from search.journal import START_ANEW, JournalFile

    file = JournalFile(path)
    try:
        return JournalStorage(file)
    except (AssertionError, LookupError, TypeError, ValueError) as error:
        # Each line is JSON, yet Optuna cannot replay them.
        raise HybridsimError(
            f"study file {path}: its records do not fit together ({error!r}); {START_ANEW}"
        ) from None


def _proxy(url: str) -> BaseStorage:
    try:
        from optuna.exceptions import ExperimentalWarning
        from optuna.storages import GrpcStorageProxy
    except ImportError as error:
        raise HybridsimError(f"storage={url}: needs a package ({error.name})") from None
    host, _, port = url.removeprefix("grpc://").rstrip("/").partition(":")
    if not host or not port.isdigit():
        raise bad_value("storage", url, "must be grpc://HOST:PORT")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        proxy = GrpcStorageProxy(host=host, port=int(port))
    proxy.wait_server_ready(timeout=REACHED_S)
    return proxy


def _database(url: str, options: Mapping[str, Any]) -> BaseStorage:
    from optuna.storages import RDBStorage

    url = re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url)
    engine = {"pool_pre_ping": True}  # a connection that an outage cut is replaced
    with _alone(url):
        return RDBStorage(url, engine_kwargs=engine, **options)


@contextmanager
def _alone(url: str) -> Iterator[None]:
    """Let one worker at a time make an empty database's tables: of several all but one fail."""
    if not url.startswith("postgresql"):
        yield
        return
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    with create_engine(url, poolclass=NullPool).connect() as connection:
        # Held until the connection ends.
        connection.execute(text("SELECT pg_advisory_lock(hashtext('hybridsim'))"))
        yield


def open_study(
    name: str,
    directions: Sequence[str],
    sampler: BaseSampler | None,
    storage: BaseStorage,
    shown: str = "",
) -> Study:
    """Return the study of that name in the storage, made where it is missing.

    Args:
        name: of the study.
        directions: "minimize" or "maximize", one an objective.
        sampler: proposes trials; None for one that is only read.
        storage: see `open_storage`.
        shown: how messages call the storage.

    Raises:
        HybridsimError: the storage fails, or holds a study of that name with other directions.
    """
    import optuna
    from optuna.study import StudyDirection

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with storage_errors(shown):
        study = optuna.create_study(
            storage=storage,
            sampler=sampler,
            study_name=name,
            directions=[StudyDirection[d.upper()] for d in directions],
            load_if_exists=True,
        )
    found = [direction.name.lower() for direction in study.directions]
    if found != list(directions):
        raise HybridsimError(
            f"study={name}: has the objectives' directions {', '.join(found)}, not"
            f" {', '.join(directions)}; choose another name"
        )
    return study


@contextmanager
def file_errors(shown: str) -> Iterator[None]:
    """Turn what the file system refuses into one line.

    Raises:
        HybridsimError: no room, no permission, no such folder.
    """
    try:
        yield
    except OSError as error:
        raise _file_error(shown, error) from None


@contextmanager
def storage_errors(shown: str) -> Iterator[None]:
    """Turn what a storage raises into one line that names it; errors of others pass through.

    Raises:
        HybridsimError: no room, no such database, a file that is not a study's.
    """
    try:
        yield
    except HybridsimError:
        raise
    except Exception as error:
        if not _is_from_storage(error):
            raise
        if isinstance(error, OSError):
            raise _file_error(shown, error) from None
        line = _explained(error)
        if line is None:
            raise
        raise HybridsimError(f"study storage {shown}: {line}") from None


def _is_from_storage(error: Exception) -> bool:
    frames = traceback.walk_tb(error.__traceback__)
    modules = (frame.f_globals.get("__name__", "") for frame, _ in frames)
    homes = ("optuna.storages", "search.journal", "sqlalchemy")
    return any(name.startswith(homes) for name in modules)


def _file_error(shown: str, error: OSError) -> HybridsimError:
    if error.errno in _NO_ROOM:
        return HybridsimError(
            f"study storage {shown}: cannot be written ({error.strerror});"
            " finished trials are kept, the same command goes on when there is room"
        )
    return HybridsimError(f"study storage {shown}: {error.strerror or error}")


def _explained(error: Exception) -> str | None:
    """Return one line for an error of a database, a proxy or a journal; None for another one."""
    home = type(error).__module__.partition(".")[0]
    if home == "grpc":
        code = getattr(error, "code", None)
        return f"the storage proxy does not answer ({code().name if code else error})"
    if isinstance(error, ImportError):
        return f"needs the package {_missing(error)}"
    if home in ("sqlalchemy", "psycopg", "psycopg2", "sqlite3") or _is_optunas(error):
        return " ".join(str(getattr(error, "orig", None) or error).split())
    if isinstance(error, json.JSONDecodeError) or "log format" in str(error):
        return "a line of the journal is not a record of a study"
    return None


def _missing(error: BaseException) -> str:
    """Return the package that an ImportError is about; Optuna's own leaves it to the first one."""
    first = error.__cause__ or error.__context__
    name: str | None = getattr(error, "name", None)
    return name or (_missing(first) if first else "of that database's driver")


def _is_optunas(error: Exception) -> bool:
    from optuna.exceptions import StorageInternalError

    return isinstance(error, StorageInternalError)
