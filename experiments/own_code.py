"""Classes of the user's, found by a dotted path or in a file: my_package.MyMethod, path/to/file.py:MyMethod."""

from __future__ import annotations

import hashlib
import inspect
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from methods.errors import InvalidInput, unknown_name

STARTED_IN = "SLICEBENCH_STARTED_IN"  # the folder of the command, for worker processes that may be in another one
EXPECTED = "expected my_package.MyClass, or FILE.py:MyClass"


def located(target: str, where: str) -> Any:
    """What this target names.

    Parameters
    ----------
    target : str
        A dotted path, or the path of a file, a colon and a name in it. A relative path starts at the working
        directory, else at that of the command which started this process.
    where : str
        Where it was given, for the message: "method._target_".

    Raises
    ------
    InvalidInput
        Saying what fails: no such file or module, what is wrong in it and in which line, or which classes it has.

    Examples
    --------
    >>> located("methods.Spotlight", "method._target_").__name__
    'Spotlight'
    """
    given = f"{where} {target!r}"
    module, name = _from_file(target, given) if _is_file(target) else _from_path(target, given)
    try:
        return getattr(module, name)
    except AttributeError:
        own = [name for name, value in vars(module).items() if _is_defined_in(module, value)]
        problem = f"{given} cannot be imported: {_called(module)} has no {name!r}"
        raise InvalidInput(unknown_name(problem, name, own or getattr(module, "__all__", ()))) from None


def located_class(target: str, where: str, verbs: Sequence[str]) -> type:
    """The class that this target names, if it has these methods; else `InvalidInput`, as for `located`."""
    found = located(target, where)
    missing = [verb for verb in verbs if not callable(getattr(found, verb, None))]
    if not isinstance(found, type) or missing:
        what = f"it has no {' and no '.join(missing)}" if isinstance(found, type) else "it is no class"
        raise InvalidInput(
            f"{where} {target!r} cannot be used, expected a class that can {' and '.join(verbs)}: {what}"
        )
    return found


def short(target: str) -> str:
    """The target without the folders of its file: what is the same on every machine.

    Examples
    --------
    >>> short("/home/me/file.py:MyMethod"), short("my_package.MyMethod")
    ('file.py:MyMethod', 'my_package.MyMethod')
    """
    path, _, name = target.rpartition(":")
    return f"{Path(path).name}:{name}" if path else target


def class_name(target: str) -> str:
    """The last part of a target, which tables show."""
    return target.replace(":", ".").rpartition(".")[2]


def _is_file(target: str) -> bool:
    return ":" in target or target.endswith(".py") or os.sep in target


def _from_file(target: str, given: str) -> tuple[ModuleType, str]:
    path, _, name = target.rpartition(":") if ":" in target else (target, "", "")
    if not path.endswith(".py"):
        raise InvalidInput(f"{given} is no file of Python's, {EXPECTED}")
    file = _found(Path(path).expanduser(), given)
    module = _loaded(file, given)
    if not name:
        raise InvalidInput(f"{given} names no class, {EXPECTED}: {_classes(module)}")
    return module, name


def _found(path: Path, given: str) -> Path:
    """The absolute path of a file that is there."""
    folders = [Path.cwd(), *map(Path, filter(None, [os.environ.get(STARTED_IN)]))]
    for folder in folders:
        if (folder / path).is_file():
            return (folder / path).resolve()
    beside = folders[0] / path.parent
    names = [file.name for file in beside.glob("*.py")] if beside.is_dir() else []
    problem = f"{given} cannot be imported: there is no file {path}{'' if path.is_absolute() else f' in {folders[0]}'}"
    raise InvalidInput(unknown_name(problem, path.name, names) if names else problem)


def _loaded(file: Path, given: str) -> ModuleType:
    """The module in this file; one for each content, so that an edited file is another one."""
    source = _read(file, given)
    # a name that nothing else has, and the same in every process
    name = f"own_code_{file.stem}_{hashlib.sha256(os.fsencode(file) + b':' + source).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, file)
    assert spec is not None  # its name ends in .py
    module = module_from_spec(spec)
    sys.modules[name] = module  # before its code runs: dataclasses look up their annotations there
    try:
        # not by the loader: its cache of compiled files takes two edits within a second for one
        exec(compile(source, file, "exec", dont_inherit=True), vars(module))
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, Exception | SystemExit):  # a script may end itself
            raise
        raise InvalidInput(f"{given} cannot be imported: {_reason(error, file)}{_hint(error, file)}") from error
    cloudpickle.register_pickle_by_value(module)  # processes that a method starts cannot import such a name
    return module


def _read(file: Path, given: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{given} cannot be imported: {file} cannot be read ({error.strerror})") from None


def _from_path(target: str, given: str) -> tuple[ModuleType, str]:
    name_of_module, _, name = target.rpartition(".")
    if not name_of_module:
        raise InvalidInput(f"{given} is no class, {EXPECTED}")
    try:
        return import_module(name_of_module), name
    except (Exception, SystemExit) as error:  # whatever is wrong in a user's module, its import says it
        reason = _reason(error, _file_of(name_of_module))
        file = f"{name_of_module.replace('.', '/')}.py"
        hint = f" (for the file {file}: {file}:{name})" if Path(file).is_file() else _hint(error)
        raise InvalidInput(f"{given} cannot be imported: {reason}{hint}") from error


def _file_of(module: str) -> Path | None:
    try:
        spec = find_spec(module)
    except Exception:  # of a package that cannot be imported
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None


def _reason(error: BaseException, file: Path | None) -> str:
    """What went wrong, and in which line of the file, if it came as far as that."""
    said = f"{type(error).__name__}: {error}".splitlines()[0]
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    if isinstance(error, SyntaxError) or file is None or not lines:  # which says its place itself
        return said
    return f"{said} ({file.name}, line {lines[-1]})"


def _hint(error: BaseException, file: Path | None = None) -> str:
    if not isinstance(error, ModuleNotFoundError):
        return ""
    beside = file is not None and error.name is not None and (file.parent / f"{error.name.split('.')[0]}.py").exists()
    folder = os.path.relpath(file.parent) if file is not None and beside else "DIR"
    return f" (a module in a folder: --import-path {folder})"


def _classes(module: ModuleType) -> str:
    names = [name for name, value in vars(module).items() if _is_defined_in(module, value)]
    return f"{_called(module)} has {', '.join(names) or 'none'}"


def _is_defined_in(module: ModuleType, value: Any) -> bool:
    return inspect.isclass(value) and value.__module__ == module.__name__


def _called(module: ModuleType) -> str:
    """A module's own name, or that of its file, where ours would tell nobody anything."""
    file = getattr(module, "__file__", None)
    return Path(file).name if file and module.__name__.startswith("own_code_") else module.__name__
