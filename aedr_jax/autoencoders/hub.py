"""Downloads: only the autoencoder's two files, one commit, hashes recorded at the first download and enforced after.

The lock file is `$AEDR_LOCK`, or `aedr_jax/lock.json` in the user's cache folder; it holds, for each repository,
subfolder and asked revision, the commit and the sha256 of both files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from aedr_jax.errors import AutoencoderError
from aedr_jax.files import whole_file

__all__ = ["WEIGHT_FILES", "download", "file_sha256", "lock_path"]

WEIGHT_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")


def lock_path() -> Path:
    """Where commits and hashes are recorded."""
    if path := os.environ.get("AEDR_LOCK"):
        return Path(path)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "aedr_jax" / "lock.json"


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
      The local folder of the two files, below a folder named after the commit.

    Raises:
      AutoencoderError: when the download fails, no safetensors file is there, or a hash differs from the lock file's.
    """
    where = f"{repository}/{subfolder}".rstrip("/")
    lock = lock_path()
    entries = _read_lock(lock)
    key = f"{where}@{revision or 'default'}"
    locked = entries.get(key)
    wanted = locked["commit"] if locked else revision
    # What was recorded is what is asked for: without a network, nobody can say that the other file does not exist.
    names = [name for name in WEIGHT_FILES if not locked or name in locked["sha256"]]
    with _explained(where):
        config, weights = _fetch(repository, subfolder, wanted, names, where)

    commit = config.relative_to(_snapshots(config)).parts[0]
    found = {path.name: file_sha256(path) for path in (config, weights)}
    if locked is None:
        # Read again before writing: another process may have recorded other models meanwhile.
        _write_lock(lock, {**_read_lock(lock), key: {"commit": commit, "sha256": found}})
    elif locked["sha256"] != found:
        raise AutoencoderError(
            f"{where}: the files are not those that were recorded at the first download.\n"
            f"  recorded in {lock}: {locked['sha256']}\n  found in {config.parent}: {found}\n"
            "If you trust the new ones, delete that entry of the lock file."
        )
    return config.parent


def _fetch(
    repository: str, subfolder: str, revision: str | None, names: Sequence[str], where: str
) -> tuple[Path, Path]:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    def fetch(name: str, at: str | None) -> Path:
        return Path(hf_hub_download(repository, name, subfolder=subfolder or None, revision=at))

    config = fetch("config.json", revision)
    # The weights from the very commit that the config came from, even if the branch moves in between.
    commit = config.relative_to(_snapshots(config)).parts[0]
    for name in names:
        try:
            return config, fetch(name, commit)
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            continue
    raise AutoencoderError(no_safetensors(where))


def no_safetensors(where: str) -> str:
    """What to say where there is a config but no weights that may be loaded."""
    return (
        f"{where}: no {' or '.join(WEIGHT_FILES)}. Pickled weights (.bin, .ckpt, .pt) are never loaded here, since "
        "unpickling runs code; convert them in an environment with PyTorch:\n"
        "  python weights/convert_bin.py FOLDER   (torch.load(weights_only=True), writes the .safetensors beside it)"
    )


def _snapshots(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.name == "snapshots")


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
        raise AutoencoderError(f"{where}: no such repository (or a private one, and no token)") from error
    except LocalEntryNotFoundError as error:
        raise AutoencoderError(
            f"{where}: not in the local cache, and the hub cannot be reached. Download it where there is a network "
            "(`aedr convert`), and pass the folder."
        ) from error
    except EntryNotFoundError as error:
        raise AutoencoderError(f"{where}: holds no config.json; is the subfolder right?") from error
    except Exception as error:  # OSError, the errors of whichever HTTP client it uses, ValueError for an odd name, ...
        raise AutoencoderError(f"{where}: the download failed: {error}") from error


def _read_lock(path: Path) -> dict:
    try:
        entries = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise AutoencoderError(f"{path}: the lock file is no valid JSON ({error}); repair or delete it") from error
    whole = isinstance(entries, dict) and all(
        isinstance(entry, dict) and isinstance(entry.get("commit"), str) and isinstance(entry.get("sha256"), dict)
        for entry in entries.values()
    )
    if not whole:
        raise AutoencoderError(f"{path}: the lock file holds more than commits and hashes; repair or delete it")
    return entries


def _write_lock(path: Path, entries: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        partial.write_text(json.dumps(entries, indent=2, sort_keys=True))
