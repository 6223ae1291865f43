"""Turn what goes wrong into one line that says what, where and what to do."""

from __future__ import annotations

import errno
import os
import re
import traceback

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from methods.errors import InvalidInput, unknown_name


def explanation(error: BaseException) -> str | None:
    """What to tell the user, or None where the error is not the user's but ours."""
    if isinstance(error, InvalidInput):
        return str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _no_such_config(error)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _about_config(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
        return f"{error.filename or 'a file'} cannot be written: {error.strerror}"
    if isinstance(error, ValueError) and _raised_in_hydra(error):
        return f"the command line cannot be read: {error}"
    return None


def _raised_in_hydra(error: BaseException) -> bool:
    innermost = traceback.extract_tb(error.__traceback__)[-1]
    return f"{os.sep}hydra{os.sep}" in innermost.filename


def _no_such_config(error: MissingConfigException) -> str:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    return unknown_name(f"no {group or 'config'} is called {name!r}", name, error.options or ())


def _about_config(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    missing = re.search(r"Key '([^']+)' is not in struct", f"{error}\n{error.__cause__}")
    full_key = re.search(r"full_key: (\S+)", f"{error}\n{error.__cause__}")
    if isinstance(error, ConfigCompositionException) and missing:
        key = full_key.group(1) if full_key else missing.group(1)
        return f"there is no setting {key!r}{_settings_beside(error, missing.group(1))}"
    return " ".join(lines[:2])


def _settings_beside(error: BaseException, name: str) -> str:
    node = getattr(error.__cause__, "parent_node", None)
    if node is None:
        return ""
    return unknown_name("", name, (str(key) for key in node if key != "_target_"))
