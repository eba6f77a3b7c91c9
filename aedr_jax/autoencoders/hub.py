"""Downloads: only the autoencoder's config and weights, one commit, hashes recorded at the first and enforced after.

The lock file is `$AEDR_LOCK`, or `aedr_jax/lock.json` in the user's cache folder; it holds, for each repository,
subfolder and asked revision, the commit and the sha256 of each file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from aedr_jax.autoencoders.tensors import WEIGHT_FILES, files_of, is_index, no_safetensors, read_object
from aedr_jax.errors import AutoencoderError, CheckpointWarning
from aedr_jax.files import cache_folder, whole_file

__all__ = ["WHOLE", "cached", "download", "file_sha256", "lock_path", "record"]

WHOLE = (
    "a model of transformers, of which nothing is downloaded here. Save its tokenizer of images apart "
    "(docs/families.md says how), and pass that file"
)

LOCK_SECONDS = 60  # to wait for another process that writes the lock file, which takes a moment


def lock_path() -> Path:
    """Where commits and hashes are recorded."""
    path = os.environ.get("AEDR_LOCK")
    return Path(path) if path else cache_folder() / "lock.json"


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(repository: str, subfolder: str, revision: str | None = None) -> Path:
    """Fetch `config.json` and the weights of an autoencoder; cached files are not fetched again.

    Args:
      repository: `org/name`.
      subfolder: the autoencoder's folder in it; "" for the root.
      revision: a commit, tag or branch; None: the commit in the lock file, or the newest if there is none.

    Returns:
      The weights' file or the index of its shards, in a folder named after the commit, with `config.json` beside it.

    Raises:
      AutoencoderError: when the download fails, no safetensors file is there, or a hash differs from the lock file's.

    Warns:
      CheckpointWarning: where the hub cannot be reached, and the cache holds other weights than those that are
        preferred. They are not recorded.
    """
    where = f"{repository}/{subfolder}".rstrip("/")
    lock = lock_path()
    key = f"{where}@{revision or 'default'}"
    locked = _read_lock(lock).get(key)
    wanted = locked["commit"] if locked else revision
    # What was recorded is what is asked for: without a network, nobody can say that the other file does not exist.
    names = [name for name in WEIGHT_FILES if not locked or name in locked["sha256"]]
    with _explained(where):
        config, weights, certain = _fetch(repository, subfolder, wanted, names, where)

    files = {config, weights, *files_of(weights)}
    commit = _commit_of(config)
    entry = {"commit": commit, "sha256": {path.name: file_sha256(path) for path in sorted(files)}}
    if locked is None and certain:
        locked = record(lock, key, entry)
        if locked["commit"] != commit:  # another process was first, and the branch moved in between
            return download(repository, subfolder, revision)
    if locked is None:
        warnings.warn(
            f"{where}: the hub cannot be reached; loaded {weights.name}, which is in the local cache. There may be a "
            f"file that is preferred ({names[0]}), with other values",
            CheckpointWarning,
            stacklevel=3,
        )
    elif locked["sha256"] != entry["sha256"]:
        raise AutoencoderError(
            f"{where}: the files are not those that were recorded at the first download.\n"
            f"  recorded in {lock}: {locked['sha256']}\n  found in {config.parent}: {entry['sha256']}\n"
            "If you trust the new ones, delete that entry of the lock file."
        )
    return weights


def cached(repository: str, subfolder: str, revision: str | None = None) -> bool:
    """Whether `download` would find a config and all files of weights without the hub."""
    from huggingface_hub import try_to_load_from_cache

    folder = f"{subfolder}/" if subfolder else ""
    where = f"{repository}/{subfolder}".rstrip("/")
    locked = _read_lock(lock_path()).get(f"{where}@{revision or 'default'}")

    def path(name: str) -> Path | None:
        found = try_to_load_from_cache(repository, folder + name, revision=locked["commit"] if locked else revision)
        return Path(found) if isinstance(found, str) else None

    weights = next((found for name in WEIGHT_FILES if (found := path(name))), None)
    if weights is None or path("config.json") is None:
        return False
    return all(file.is_file() for file in files_of(weights))


def _fetch(
    repository: str, subfolder: str, revision: str | None, names: Sequence[str], where: str
) -> tuple[Path, Path, bool]:
    """The config, the first of the weights that is there, and whether that is certain: without the hub it is so only
    for the very first."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    unreachable: LocalEntryNotFoundError | None = None

    def fetch(name: str, at: str | None) -> Path:
        # After the first failure in the cache alone: each further one would take the client's whole patience.
        offline = unreachable is not None
        path = hf_hub_download(repository, name, subfolder=subfolder or None, revision=at, local_files_only=offline)
        return Path(path)

    config = fetch("config.json", revision)
    # The weights from the very commit that the config came from, even if the branch moves in between.
    commit = _commit_of(config)
    for name in names:
        try:
            weights = fetch(name, commit)
        except LocalEntryNotFoundError as error:
            unreachable = unreachable or error
            continue
        except EntryNotFoundError:
            continue
        certain = unreachable is None
        if is_index(weights):
            _fetch_shards(weights, lambda name: fetch(name, commit))
        return config, weights, certain
    if unreachable is not None:
        raise unreachable
    if read_object(config).keys() & {"_class_name", "architectures"} == {"architectures"}:
        raise AutoencoderError(f"{where}: {WHOLE}")
    raise AutoencoderError(no_safetensors(where))


def _fetch_shards(index: Path, fetch: Callable[[str], Path]) -> None:
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for shard in files_of(index):
        try:
            fetch(shard.name)
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError as error:
            raise AutoencoderError(f"{index}: the repository holds no {shard.name}, which it names") from error


def _commit_of(path: Path) -> str:
    """Of a file in the hub's cache."""
    snapshots = next(parent for parent in path.parents if parent.name == "snapshots")
    return path.relative_to(snapshots).parts[0]


@contextlib.contextmanager
def _explained(where: str) -> Iterator[None]:
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        yield
    except AutoencoderError:
        raise
    except GatedRepoError as error:
        raise AutoencoderError(
            f"{where}: this model is gated. Accept its licence on its hub page, then log in with `hf auth login` "
            "(or set HF_TOKEN)."
        ) from error
    except RepositoryNotFoundError as error:
        raise AutoencoderError(
            f"{where}: no such repository (or a private one, and no token), and no such folder here"
        ) from error
    except LocalEntryNotFoundError as error:
        raise AutoencoderError(
            f"{where}: not in the local cache, and the hub cannot be reached (nor is there such a folder here). "
            "Download it where there is a network (`aedr convert`), and pass the folder."
        ) from error
    except EntryNotFoundError as error:
        raise AutoencoderError(f"{where}: holds no config.json; is the subfolder right?") from error
    except Exception as error:  # OSError, the errors of whichever HTTP client it uses, ValueError for an odd name, ...
        raise AutoencoderError(f"{where}: the download failed: {error}") from error


def _read_lock(path: Path) -> dict:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise AutoencoderError(_unusable(path, error)) from error
    except (ValueError, RecursionError) as error:
        raise AutoencoderError(f"{path}: the lock file is no valid JSON ({error}); repair or delete it") from error
    if not isinstance(entries, dict) or not all(map(_is_entry, entries.values())):
        raise AutoencoderError(f"{path}: the lock file holds more than commits and hashes; repair or delete it")
    return entries


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, dict):
        return False
    commit, hashes = entry.get("commit"), entry.get("sha256")
    hexadecimal = isinstance(commit, str) and re.fullmatch("[0-9a-f]{40}", commit)
    return bool(hexadecimal) and isinstance(hashes, dict) and all(isinstance(value, str) for value in hashes.values())


def record(path: Path, key: str, entry: dict) -> dict:
    """Write an entry into the lock file, unless another process has done so meanwhile.

    Args:
      path: of the lock file.
      key: repository, subfolder and revision.
      entry: commit and hashes.

    Returns:
      What is recorded then: the entry, or the other's.

    Raises:
      AutoencoderError: where the file cannot be read or written, or another process keeps it for too long.
    """
    from filelock import FileLock, Timeout

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=LOCK_SECONDS):
            entries = _read_lock(path)  # again: others may have recorded other models
            if key not in entries:
                entries[key] = entry
                with whole_file(path) as partial:
                    partial.write_text(json.dumps(entries, indent=2, sort_keys=True), encoding="utf-8")
            return entries[key]
    except Timeout as error:
        message = f"{path}.lock: held by another process for {LOCK_SECONDS} s; delete it if that process is gone"
        raise AutoencoderError(message) from error
    except (OSError, NotImplementedError) as error:
        raise AutoencoderError(_unusable(path, error)) from error


def _unusable(path: Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or error
    return (
        f"{path}: the lock file, which records what was downloaded, cannot be used ({reason}); make it readable and "
        "writable, or name another with AEDR_LOCK"
    )
