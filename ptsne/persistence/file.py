"""Model files as bytes: what is written appears whole or not at all, what is read is checked."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

FORMAT = 2
"""Format 1 had no checksum of the header, no optional arrays and no inverse."""
TYPES = {"F64", "F32", "F16", "I64", "I32", "I16", "I8", "U8", "BOOL"}
HEADER_BYTES = 100_000_000
CHECKSUMS = ("checksum", "header_checksum")
PART = ".ptsne-part"
"""End of the name of a file that is not complete."""
FOREIGN = {
    b"PK": "a zip archive, as torch.save writes; it may hold code and was not opened",
    b"\x80": "a pickle; it may hold code and was not opened",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"PAR1": "a Parquet table",
}
"""What other files start with."""
ADVICE = {
    errno.ENOSPC: "free some space or write elsewhere",
    errno.EDQUOT: "free some space or write elsewhere",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f) or write elsewhere",
    errno.ENOENT: "make the folder first",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EACCES: "write where you have the right to",
    errno.EPERM: "write where you have the right to",
    errno.EROFS: "write where you have the right to",
}


class Kind(NamedTuple):
    """What a file is called where it is refused.

    Attributes
    ----------
    name : str
        After "ptsne".
    if_other : str
        What to do where the file is something else.
    if_damaged : str
        What to do where its checksum is wrong.
    """

    name: str
    if_other: str
    if_damaged: str


MODEL = Kind(
    "model file",
    "load takes the file that save wrote, copied whole",
    "copy it again, or save the map again",
)


class ModelFile(NamedTuple):
    """Contents of a model file.

    Attributes
    ----------
    tensors : dict of Tensor
        By name.
    header : dict
        Parameters, fitted numbers, names and versions.
    """

    tensors: dict[str, Tensor]
    header: dict[str, Any]


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, types and bytes of all tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].numpy()
        digest.update(f"{name} {value.shape} {value.dtype}".encode())
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()


def header_checksum(header: Mapping[str, Any]) -> str:
    """SHA-256 over everything in a header but the checksums themselves."""
    rest = {name: value for name, value in header.items() if name not in CHECKSUMS}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


# --- writing --------------------------------------------------------------------------------------


def write(
    path: str | os.PathLike[str],
    contents: ModelFile,
    *,
    what: str = "the model",
    prefix: str = ".",
) -> None:
    """Write a model file, which appears under its name only when it is complete.

    Parameters
    ----------
    path : path-like
        File to write; a link is followed.
    contents : ModelFile
        Tensors on the CPU, and a header without format and checksums, which are added.
    what : str
        What is written, for the error.
    prefix : str
        Beginning of the name under which the file stands until it is complete.

    Raises
    ------
    OSError
        If it cannot be written; a file that was there stays as it was.
    """
    header = {**contents.header, "format": FORMAT, "checksum": checksum(contents.tensors)}
    header["header_checksum"] = header_checksum(header)
    data = safetensors.save(contents.tensors, {"ptsne": json.dumps(header)})
    try:
        _replace(Path(os.path.realpath(path)), data, prefix)
    except OSError as error:
        number = error.errno or errno.EIO
        message = (
            f"{what} was not written ({error.strerror or error}), and a file that was there is "
            f"unchanged; {ADVICE.get(number, 'write elsewhere')}"
        )
        raise OSError(number, message, os.fspath(path)) from error


def _replace(path: Path, data: bytes, prefix: str) -> None:
    """Write beside the target, then rename: a reader sees the old file or the new one."""
    is_there = path.exists()
    if is_there and not path.is_file():
        raise OSError(errno.EISDIR, "this is a folder or a device")
    if is_there and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "the file is read-only")
    temporary = path.with_name(f"{prefix}{secrets.token_hex(8)}{PART}")  # ours alone
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if is_there:
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))  # who may read it stays as it was
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


# --- reading --------------------------------------------------------------------------------------


def read(path: str | os.PathLike[str], kind: Kind = MODEL) -> ModelFile:
    """Read and check a model file; nothing in it is executed.

    Parameters
    ----------
    path : path-like
        A file written by `write`.
    kind : Kind
        What it should be, for the errors.

    Returns
    -------
    ModelFile
        Tensors and header.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    IsADirectoryError
        If it is a folder or a device.
    PermissionError
        If it may not be read.

    Notes
    -----
    ValueError if the file is of another kind, is damaged, or was written by a newer format.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no {kind.name} {path}")
    if not path.is_file():
        raise IsADirectoryError(f"{path} is a folder or a device; pass the file that save wrote")
    try:
        with path.open("rb") as file:
            contents = _parse(file, path, kind)
    except PermissionError as error:
        raise PermissionError(f"{path} may not be read; ask its owner for the right to") from error
    _check_format(contents.header, path)
    _check_sums(contents, path, kind)
    return contents


def _parse(file: BinaryIO, path: Path, kind: Kind) -> ModelFile:
    head = file.read(8)
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(head, "little")
    if length > min(HEADER_BYTES, size - 8):  # nothing is read that is not there
        known = [what for magic, what in FOREIGN.items() if head.startswith(magic)]
        what = known[0] if known else "cut off, or another kind of file" if size else "empty"
        raise ValueError(
            f"{path} is not a ptsne {kind.name}, or is damaged: it is {what}; {kind.if_other}"
        )
    text = file.read(length)
    try:
        header = _header(text)
        tensors = safetensors.load(head + text + file.read())
    except (SafetensorError, LookupError, ValueError, TypeError, RuntimeError) as error:
        reason = "" if isinstance(error, KeyError) else f" ({str(error)[:200]})"
        raise ValueError(
            f"{path} is not a ptsne {kind.name}, or is damaged{reason}; {kind.if_other}"
        ) from error
    # tensors of one alignment: matrix products round the same way in every process
    return ModelFile({name: value.clone() for name, value in tensors.items()}, header)


def _header(text: bytes) -> dict[str, Any]:
    """Our header, inside that of safetensors; KeyError where there is none."""
    outer = json.loads(text)
    if not isinstance(outer, dict) or not isinstance(outer.get("__metadata__"), dict):
        raise KeyError("__metadata__")
    text_of_ours = outer.pop("__metadata__")["ptsne"]
    types = {str(entry.get("dtype")) for entry in outer.values() if isinstance(entry, dict)}
    if types - TYPES:
        raise ValueError(f"it holds tensors of type {str(sorted(types - TYPES))[:80]}")
    header = json.loads(text_of_ours)
    if not isinstance(header, dict):
        raise TypeError("its header is no JSON object")
    return header


def _check_format(header: Mapping[str, Any], path: Path) -> None:
    found = header.get("format")
    if type(found) is not int or not 1 <= found <= FORMAT:
        versions = header.get("versions")
        writer = versions.get("ptsne") if isinstance(versions, dict) else None
        raise ValueError(
            f"{path} has format {str(found)[:20]}, this ptsne reads formats 1 to {FORMAT}; "
            f"install the version of ptsne that wrote it ({str(writer)[:20]})"
        )


def _check_sums(contents: ModelFile, path: Path, kind: Kind) -> None:
    tensors, header = contents
    is_required = header["format"] > 1 or "header_checksum" in header
    expected = [checksum(tensors), *([header_checksum(header)] if is_required else [])]
    if expected != [header.get(name) for name in CHECKSUMS[: len(expected)]]:
        raise ValueError(
            f"{path} is damaged: its checksum does not agree with its contents; {kind.if_damaged}"
        )
