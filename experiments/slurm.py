"""What became of the jobs of a sweep on a SLURM cluster."""

from __future__ import annotations

from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from submitit.core.utils import FailedJobError, UncompletedJobError
from submitit.slurm import slurm
from submitit.slurm.slurm import SlurmExecutor, SlurmInfoWatcher, SlurmJob

GONE = "GONE"  # some minutes after its end a cluster forgets a job
DELAY = 30  # seconds between two questions, at most


class QueueWatcher(SlurmInfoWatcher):
    """Asks `squeue`, which answers on every cluster.

    submitit asks `sacct`, which knows nothing where there is no accounting: it would then wait for a cancelled job for
    ever.
    """

    def _make_command(self) -> list[str] | None:
        if not self._registered - self._finished:
            return None
        return ["squeue", "--me", "--array", "--states=all", "--noheader", "--format=%i|%T"]

    def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
        """The state of every job that is not known to have ended; those that the cluster has forgotten are gone."""
        text = string if isinstance(string, str) else string.decode()
        states = dict(line.split("|") for line in text.splitlines() if "|" in line)
        return {job: {"JobID": job, "State": states.get(job, GONE)} for job in self._registered - self._finished}


class SweepJob(SlurmJob[Any]):
    """A job whose end without a result is a failure among the results of its sweep, beside those of the others."""

    watcher = QueueWatcher(delay_s=DELAY)

    def results(self) -> list[Any]:
        try:
            return super().results()
        except (UncompletedJobError, FailedJobError) as error:
            return [self._failed(error)]

    def _failed(self, error: Exception) -> JobReturn:
        from experiments.jobs import Failure

        overrides = list(self.submission().args[0])  # what the launcher was called with
        reason = f"SLURM job {self.job_id} ended without a result ({self.state}): see {self.paths.stderr}"
        failure = Failure(" ".join(overrides), reason, refused=False, ours=True, trace="")
        return JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=failure)


def use_sweep_jobs() -> None:
    """Let submitit start and watch jobs so, from now on."""
    slurm.SlurmJob = SweepJob  # of arrays submitit makes this class by name
    SlurmExecutor.job_class = SweepJob
