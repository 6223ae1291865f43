"""Turn what goes wrong into one line that says what, where and what to do."""

from __future__ import annotations

import errno
import os
import re
import traceback

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.files import errno_of
from methods.errors import InvalidInput, unknown_name

ELSEWHERE = "choose other folders with paths.cache=DIR and paths.results=DIR"
IN_THE_WAY = "something else has this name: move it away"
# errors of the file system, and what to do about them; sockets and processes have others, which are bugs
ADVICE = {
    errno.ENOSPC: f"free some space, or {ELSEWHERE}",
    errno.EDQUOT: f"free some space, or {ELSEWHERE}",
    errno.EFBIG: ELSEWHERE,
    errno.EACCES: ELSEWHERE,
    errno.EPERM: ELSEWHERE,
    errno.EROFS: ELSEWHERE,
    errno.EEXIST: IN_THE_WAY,
    errno.ENOTDIR: IN_THE_WAY,
    errno.EISDIR: IN_THE_WAY,
    errno.ENOTEMPTY: IN_THE_WAY,
    errno.ENOENT: "was it removed meanwhile?",
    errno.ESTALE: "was it removed meanwhile?",
    errno.ENAMETOOLONG: ELSEWHERE,
    errno.ELOOP: "its links lead in a circle",
    errno.EMFILE: "raise the limit with ulimit -n",
    errno.ENFILE: "too many files are open on this machine",
    errno.EIO: "is the disk broken?",
    errno.EBUSY: "another program uses it",
    errno.ENOLCK: f"this file system has no locks: {ELSEWHERE}",
    errno.ENOSYS: f"this file system has no locks: {ELSEWHERE}",
}


def explanation(error: BaseException) -> str | None:
    """What to tell the user, or None where the error is not the user's but ours."""
    if isinstance(error, InvalidInput):
        return str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _no_such_config(error)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _about_config(error)
    if _is_out_of_memory(error):
        return f"there is not enough memory ({_first_line(error)}): give it more, or try a smaller compute.batch_size"
    # the last two by name: neither needs to be installed here
    if isinstance(error, OSError) or type(error).__name__ in ("SafetensorError", "ArrowInvalid"):
        return _about_files(error)
    if type(error).__name__ == "FailedJobError":  # of submitit: what sbatch said
        return f"the cluster does not take the jobs: {next(reversed(str(error).splitlines()), 'sbatch failed')}"
    if isinstance(error, ValueError) and _raised_in_hydra(error):
        return f"the command line cannot be read: {error}"
    return None


def line_of(error: BaseException) -> str:
    """One line about an error: the explanation's first, else what and which it is."""
    return next(iter((explanation(error) or f"{type(error).__name__}: {error}").splitlines()))


def _about_files(error: BaseException) -> str | None:
    code = errno_of(error)
    if code in ADVICE:
        file = getattr(error, "filename", None) or "a file"
        return f"{file}: {os.strerror(code)}: {ADVICE[code]} (--debug shows where)"
    # words of Arrow and of safetensors for a file that is not what was written
    words = "corrupt|deserializ|end of stream" + ("" if isinstance(error, OSError) else "|header|parquet")
    if code is not None or not re.search(f"(?i){words}", str(error)):
        return None
    return f"a file is damaged ({_first_line(error)}): delete it and run again (--debug shows where)"


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or bool(re.search(r"CUDA out of memory|can't allocate memory", str(error)))


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


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
    if isinstance(error, OverrideParseException) and "Lexer" in lines[0]:  # by its class, and nothing else
        quoted = "a value with other than letters and digits stands in quotes: 'KEY=\"VALUE\"'"
        return f"{error.override!r} cannot be read, expected KEY=VALUE; {quoted}"
    if isinstance(error, ConfigCompositionException) and missing:
        key = full_key.group(1) if full_key else missing.group(1)
        return f"there is no setting {key!r}{_settings_beside(error, missing.group(1))}"
    return " ".join(lines[:2])


def _settings_beside(error: BaseException, name: str) -> str:
    node = getattr(error.__cause__, "parent_node", None)
    if node is None:
        return ""
    # a number without the group that it belongs to
    below = [
        f"{group}.{name}"
        for group, values in node.items_ex(resolve=False)
        if OmegaConf.is_dict(values) and name in values
    ]
    if below:
        return f"; there is {' and '.join(below)}"
    return unknown_name("", name, (str(key) for key in node if key != "_target_"))
