"""Profiles as a JSON file: versioned, checked on reading, written whole or not at all."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from scepsy.errors import InputError, MissingError
from scepsy.profiles.curve import ProfileCurve, ProfileSet

VERSION = 1


class _ProfileFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal["scepsy-profiles"]
    version: Literal[1]
    curves: tuple[ProfileCurve, ...]


_FILE: TypeAdapter[_ProfileFile] = TypeAdapter(_ProfileFile)


def load_profiles(path: Path) -> ProfileSet:
    """Read a profile file.

    Raises:
        MissingError: there is no such file.
        InputError: it is not a profile file of this version, or a curve in it is not valid.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise MissingError(f"no profiles at {path}", hint="make them: scepsy profile") from None
    except OSError as error:
        raise InputError(f"cannot read profiles at {path}: {error.strerror}") from None
    try:
        return ProfileSet(_FILE.validate_json(text).curves)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(
            f"{path} is not a profile file of version {VERSION}: {where}: {first['msg']}",
            hint="profile again: scepsy profile writes a new file",
        ) from None
    except InputError as error:  # from a value's own check
        raise InputError(f"{path}: {error}", hint="profile again") from None


def save_profiles(path: Path, profiles: ProfileSet) -> None:
    """Write a profile file; one that is there is replaced at once, or kept if writing fails.

    Raises:
        InputError: the file cannot be written.
    """
    file = _ProfileFile(format="scepsy-profiles", version=VERSION, curves=profiles.curves)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(_FILE.dump_json(file, indent=1))
        partial.replace(path)
    except OSError as error:
        raise InputError(f"cannot write profiles to {path}: {error.strerror}") from None
