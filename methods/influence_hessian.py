"""The top of a Hessian's spectrum, from products of the Hessian with vectors alone."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from methods.errors import InvalidInput
from methods.progress import progress

Product = Callable[[Tensor], Tensor]  # (n_params,) -> (n_params,)

COLUMNS = 16_384  # the basis is read in blocks of columns: one of 500 rows is 33 MB in float32
ENOUGH = 0.7  # orthogonalised once is enough where that much of the norm is left (Kahan's rule says 1 / sqrt(2))
PASSES = 5  # at most: a basis in float32 takes one or two, one in bfloat16 leaves more behind each time
FEW_BYTES = 2**28  # of a basis, to be measured with: more than a processor's cache holds
UNCONVERGED = 0.1  # of an eigenvalue: a larger residual is worth a note


@dataclass(frozen=True, eq=False)
class HessianFactors:
    """The largest eigenpairs that a Krylov space shows: H^-1 is about M^T diag(1 / lambda) M.

    Parameters
    ----------
    directions : Tensor, shape (D, n_params)
        M^T there: orthonormal rows, the largest eigenvalue first.
    eigenvalues : Tensor, shape (D,), float64, > 0, in nats / squared units of the parameters
        Of the Hessian of the *summed* loss, so they grow with the number of examples.
    residuals : Tensor, shape (D,), float64, >= 0
        |H m - lambda m| of each pair, in exact arithmetic: there is a true eigenvalue this near.
    ritz_values : Tensor, shape (n_steps,), float64, descending
        All eigenvalues of the Hessian within the Krylov space, also zero and negative ones.
    n_steps : int
        Hessian-vector products made for the basis: P, or fewer where the space was exhausted.
    trace : float or None
        Of the Hessian: exact, or an estimate (see `factor_hessian`).
    notes : tuple of str
        What a reader of the results should know; empty where all went well.

    References
    ----------
    Wang et al. (2023), equation 7 and algorithm 3 (appendix C.1).

    Examples
    --------
    >>> factors = factor_hessian(lambda v: torch.tensor([5.0, 1.0, 0.0]) * v, 3, rank=1, krylov_dim=3, trace=6.0)
    >>> factors.directions.abs().round(decimals=3).tolist(), round(factors.captured, 3)
    ([[1.0, 0.0, 0.0]], 0.833)
    >>> HessianFactors.from_arrays(factors.to_arrays()).eigenvalues.round(decimals=3).tolist()
    [5.0]
    """

    directions: Tensor
    eigenvalues: Tensor
    residuals: Tensor
    ritz_values: Tensor
    n_steps: int
    trace: float | None
    notes: tuple[str, ...]

    @property
    def rank(self) -> int:
        """D: the number of directions that were kept."""
        return len(self.eigenvalues)

    @property
    def effective_rank(self) -> float:
        """The exponential of the entropy of the kept eigenvalues' shares, in [1, D] (Roy and Vetterli 2007)."""
        shares = self.eigenvalues / self.eigenvalues.sum()
        return math.exp(-torch.xlogy(shares, shares).sum().item())

    @property
    def captured(self) -> float | None:
        """Share of the positive curvature that the kept directions hold, in (0, 1]; None where no trace is known.

        The positive eigenvalues sum up to the trace minus the negative ones, of which the Krylov space shows most.
        """
        if self.trace is None:
            return None
        kept = self.eigenvalues.sum().item()
        return kept / max(kept, self.trace - self.ritz_values.clamp_max(0).sum().item())

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything as numpy arrays, none of dtype object, for a cache of .npy files."""
        tensors = ("directions", "eigenvalues", "residuals", "ritz_values")
        return {
            **{name: getattr(self, name).cpu().numpy() for name in tensors},
            "n_steps": np.array(self.n_steps),
            "trace": np.array(math.nan if self.trace is None else self.trace),
            "notes": np.array(self.notes, dtype=np.str_),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], device: torch.device | str = "cpu") -> Self:
        """What `to_arrays` gave; memory-mapped directions (mmap_mode="c") stay on disk on a CPU."""
        trace = float(arrays["trace"])
        return cls(
            directions=torch.from_numpy(arrays["directions"]).to(device),
            **{name: torch.from_numpy(arrays[name]) for name in ("eigenvalues", "residuals", "ritz_values")},
            n_steps=int(arrays["n_steps"]),
            trace=None if math.isnan(trace) else trace,
            notes=tuple(str(note) for note in arrays["notes"]),
        )


def factor_hessian(
    product: Product,
    n_parameters: int,
    *,
    krylov_dim: int = 500,
    rank: int = 100,
    tolerance: float = 1e-6,
    trace: float | None = None,
    probes: int = 0,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    storage: torch.dtype | None = None,
    basis_file: str | os.PathLike[str] | None = None,
    max_bytes: int | None = None,
) -> HessianFactors:
    """The top eigenpairs of a symmetric matrix by the Lanczos iteration with full re-orthogonalisation.

    Parameters
    ----------
    product : callable, (n_params,) -> (n_params,)
        The Hessian times a vector of `dtype` on `device`.
    n_parameters : int, >= 1
    krylov_dim : int, >= 1
        P, the number of products; at most n_parameters are made.
    rank : int, in [1, krylov_dim]
        D; fewer directions come back where fewer eigenvalues are large enough. P >= 2 D is advisable.
    tolerance : float, in [0, 1)
        An eigenvalue is kept above this share of the largest, never below what rounding alone produces.
    trace : float, optional
        Of the Hessian, where it is known.
    probes : int, >= 0
        Further products, to estimate the trace where it is not known.
    seed : int, >= 0
        Of the first vector and the probes; torch's global generator is left alone.
    dtype : torch.dtype
        Computed in: float32, or float64 where small eigenvalues matter.
    device : torch.device or str
    storage : torch.dtype, optional
        Of the basis; `dtype` where it is left out. With bfloat16 the basis takes half the memory, and directions are
        good to about 1e-2.
    basis_file : path, optional
        Keep the basis in this file (overwritten), mapped into memory, instead of in memory. Afterwards the file holds
        the directions, which stay mapped: it must live as long as they do.
    max_bytes : int, optional
        The memory that basis and directions may take; what is free on the device where it is left out.

    Raises
    ------
    InvalidInput
        Where a number is out of range, the basis does not fit (with the arithmetic), a product is not finite, or no
        eigenvalue is positive.

    Notes
    -----
    The paper runs Arnoldi, which for a symmetric matrix is Lanczos: the new vector is first made orthogonal to the
    last two, and then to all (what rounding has brought back), a second time only where much was taken away. So a step
    reads the basis twice. Where nothing is left, the Krylov space is invariant, and a random vector orthogonal to it
    starts another one: equal eigenvalues, of which one Krylov space shows a single vector, are all found. If the
    Hessian maps that vector to zero too, there is no curvature outside.

    The trace is tr(Q^T H Q) plus Hutchinson's estimate on the complement of the basis Q (Meyer et al. 2021).

    References
    ----------
    Wang et al. (2023), algorithm 3 (appendix C.1); Schioppa et al. (2022).

    Examples
    --------
    >>> diagonal = torch.tensor([4.0, 4.0, -1.0, 0.0])
    >>> factor_hessian(lambda v: diagonal * v, 4, krylov_dim=4, rank=2).eigenvalues.round(decimals=3).tolist()
    [4.0, 4.0]
    """
    _check_numbers(n_parameters, krylov_dim, rank, tolerance)
    shape, path = (min(krylov_dim, n_parameters), n_parameters), None if basis_file is None else Path(basis_file)
    basis = _allocated(shape, rank, dtype, storage or dtype, torch.device(device), path, max_bytes)
    lanczos = _Lanczos(product, basis, dtype, seed)
    lanczos.run()
    trace = lanczos.trace(probes) if trace is None and probes > 0 else trace
    values, vectors = lanczos.ritz_pairs()  # (n_steps,) descending, (n_steps, n_steps)
    share = max(tolerance, lanczos.rounding)
    kept = int((values[:rank] > max(share * values[0].item(), 0)).sum())
    if kept == 0:
        raise InvalidInput("no eigenvalue of the Hessian is positive: without curvature there is no influence")
    residuals = lanczos.remainder * vectors[-1, :kept].abs()
    notes = _notes(values, residuals, rank, share, lanczos)
    directions = _directions(lanczos, vectors[:, :kept], path)
    return HessianFactors(directions, values[:kept], residuals, values, lanczos.n_steps, trace, notes)


def bytes_needed(
    n_parameters: int,
    krylov_dim: int = 500,
    rank: int = 100,
    dtype: torch.dtype = torch.float32,
    storage: torch.dtype | None = None,
) -> int:
    """What `factor_hessian` holds at its peak, in bytes: the basis and the directions.

    Examples
    --------
    >>> bytes_needed(8_900_000) / 1e9
    21.36
    """
    basis = min(krylov_dim, n_parameters) * (storage or dtype).itemsize
    return n_parameters * (basis + min(rank, n_parameters) * dtype.itemsize)


def basis_seconds(
    n_parameters: int,
    n_steps: int,
    rank: int,
    probes: int,
    dtype: torch.dtype,
    device: torch.device,
    storage: torch.dtype,
) -> float:
    """What `factor_hessian` takes beside the products, measured on a few vectors and one block of columns."""
    n_few = min(n_steps, max(2, FEW_BYTES // (n_parameters * storage.itemsize)), 64)
    few = torch.full((n_few, n_parameters), n_parameters**-0.5, dtype=storage, device=device)
    lanczos = _Lanczos(lambda vector: vector, few, dtype, seed=0)
    lanczos.n_steps, vector = n_few, few[0].to(dtype)
    a_row = seconds_of(lambda: lanczos.take_out(vector).sum().item()) / n_few
    # a step takes out two rows, then all there are; a probe all of them twice; beginnings and restarts do not count
    n_rows = n_steps * (n_steps / 2 + 2) + 2 * probes * n_steps
    weights, block = (torch.ones(n, m, dtype=dtype, device=device) for n, m in ((rank, n_steps), (n_steps, COLUMNS)))
    return n_rows * a_row + seconds_of(lambda: (weights @ block).sum().item()) * n_parameters / COLUMNS


def free_bytes(device: torch.device) -> int | None:
    """Memory that can still be had on a device, or None where that cannot be known."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text().splitlines() if meminfo.is_file() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


class _Lanczos:
    """An orthonormal basis of a Krylov space, and the Hessian restricted to it."""

    def __init__(self, product: Product, basis: Tensor, dtype: torch.dtype, seed: int) -> None:
        self.product, self.basis, self.dtype = product, basis, dtype
        self.generator = torch.Generator().manual_seed(seed)
        self.restricted = torch.zeros(len(basis), len(basis), dtype=torch.float64)  # upper triangle of Q^T H Q
        self.n_steps, self.scale, self.remainder, self.is_exhausted = 0, 0.0, 0.0, False
        self.add(self.random())
        self.is_fresh = True  # the newest vector is random, not a product

    @property
    def rounding(self) -> float:
        """The share of the largest eigenvalue below which rounding alone can make another."""
        # errors of a stored vector are independent over its n entries: they shrink by sqrt(n) in a product
        stored = torch.finfo(self.basis.dtype).eps / math.sqrt(self.basis.shape[1])
        return 10 * max(torch.finfo(self.dtype).eps, stored)

    def run(self) -> None:
        for step in progress(range(len(self.basis)), "Hessian-vector products", len(self.basis)):
            following = self.step(step)
            if following is None or step + 1 == len(self.basis):
                return
            self.add(following)

    def random(self) -> Tensor:
        """A vector of random direction, orthogonal to the basis so far."""
        vector = torch.randn(self.basis.shape[1], generator=self.generator).to(self.basis.device, self.dtype)
        for _ in range(2):
            self.take_out(vector)
        return vector

    def add(self, vector: Tensor) -> None:
        self.basis[self.n_steps] = vector / vector.norm()
        self.n_steps += 1

    def step(self, step: int) -> Tensor | None:
        """One product; the next basis vector before normalisation, or None where no curvature is left."""
        vector = self.multiplied(self.basis[step].to(self.dtype))
        norm = vector.norm().item()
        self.scale = max(self.scale, norm)
        self.restricted[: step + 1, step] = self.orthogonalise(vector)
        self.remainder = vector.norm().item()
        negligible = self.scale * 10 * torch.finfo(self.dtype).eps
        if self.remainder > negligible:
            self.is_fresh = False
            return vector
        self.remainder = 0.0
        self.is_exhausted = (self.is_fresh and norm <= negligible) or self.n_steps == self.basis.shape[1]
        self.is_fresh = True
        return None if self.is_exhausted else self.random()

    def multiplied(self, vector: Tensor) -> Tensor:
        result = self.product(vector).to(self.dtype)
        if not torch.isfinite(result).all():
            raise InvalidInput(
                f"Hessian-vector product {self.n_steps} is not finite: look for logits or parameters that are not"
            )
        return result.clone()  # it is changed in place, and the product may have given what it still needs

    def orthogonalise(self, vector: Tensor) -> Tensor:
        """Take the basis out of the vector, in place; what was taken: Tensor, shape (n_steps,), float64."""
        taken = torch.zeros(self.n_steps, dtype=torch.float64)
        for row in range(self.n_steps - 1, max(self.n_steps - 3, -1), -1):
            known = self.basis[row].to(self.dtype)
            taken[row] = share = torch.dot(known, vector).item()
            vector.sub_(known, alpha=share)
        for _ in range(PASSES):
            before = vector.norm()
            taken += self.take_out(vector)
            if vector.norm() > ENOUGH * before:
                break
        return taken

    def take_out(self, vector: Tensor) -> Tensor:
        """One pass of Gram-Schmidt against the whole basis, in place: Tensor, shape (n_steps,), float64."""
        shares = torch.zeros(self.n_steps, dtype=self.dtype, device=vector.device)
        for columns, block in self.blocks():
            shares += block @ vector[columns]
        for columns, block in self.blocks():
            vector[columns] -= shares @ block
        return shares.double().cpu()

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        for start in range(0, self.basis.shape[1], COLUMNS):
            columns = slice(start, start + COLUMNS)
            yield columns, self.basis[: self.n_steps, columns].to(self.dtype)

    def ritz_pairs(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues and eigenvectors of the restricted Hessian, the largest first."""
        values, vectors = torch.linalg.eigh(self.restricted[: self.n_steps, : self.n_steps], UPLO="U")
        return values.flip(0), vectors.flip(1)

    def combined(self, vectors: Tensor, in_place: bool) -> Tensor:
        """V^T Q: Tensor, shape (D, n_params); in place, over the first rows of the basis."""
        weights = vectors.T.to(self.basis.device, self.dtype)  # (D, n_steps)
        shape = len(weights), self.basis.shape[1]
        target = self.basis[: len(weights)] if in_place else torch.empty(shape, dtype=self.dtype, device=weights.device)
        for columns, block in self.blocks():
            target[:, columns] = weights @ block
        return target

    def trace(self, probes: int) -> float:
        inside = self.restricted.diagonal().sum().item()
        if self.is_exhausted:
            return inside
        outside = 0.0
        for _ in range(probes):
            signs = torch.randint(0, 2, self.basis.shape[1:], generator=self.generator)
            probe = (2 * signs - 1).to(self.basis.device, self.dtype)
            for _ in range(2):
                self.take_out(probe)
            outside += torch.dot(probe, self.multiplied(probe)).item()
        return inside + outside / probes


def seconds_of(work: Callable[[], object]) -> float:
    """The time of a call after the first: the median of three, or of one that takes a second or more."""
    work()
    seconds: list[float] = []
    while len(seconds) < 3 and sum(seconds) < 1:
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _check_numbers(n_parameters: int, krylov_dim: int, rank: int, tolerance: float) -> None:
    for name, value in (("n_parameters", n_parameters), ("krylov_dim", krylov_dim), ("rank", rank)):
        if value < 1:
            raise InvalidInput(f"{name} is {value}, expected at least 1")
    if rank > krylov_dim:
        raise InvalidInput(f"rank is {rank}, expected at most krylov_dim, {krylov_dim} (better half of it)")
    if not 0 <= tolerance < 1:
        raise InvalidInput(f"tolerance is {tolerance}, expected at least 0 and below 1")


def check_memory(
    n_parameters: int,
    n_rows: int,
    rank: int,
    dtype: torch.dtype,
    storage: torch.dtype,
    limit: int | None,
    remedy: str = "choose fewer layers, a smaller krylov_dim, storage=bfloat16 or a basis_file",
) -> None:
    """Raise `InvalidInput` with the arithmetic where basis and directions take more bytes than the limit."""
    n_rows, rank = min(n_rows, n_parameters), min(rank, n_rows, n_parameters)
    needed = bytes_needed(n_parameters, n_rows, rank, dtype, storage)
    if limit is None or needed <= limit:
        return
    parts = (
        f"{count:,} {what} x {n_parameters:,} parameters x {kind.itemsize} bytes = {_gb(count * n_parameters, kind)}"
        for count, what, kind in ((n_rows, "basis vectors", storage), (rank, "directions", dtype))
    )
    raise InvalidInput(
        f"the Krylov basis does not fit: {' and '.join(parts)}, together {needed / 1e9:.2f} GB of the "
        f"{limit / 1e9:.2f} GB that may be used; {remedy}"
    )


def _gb(count: int, dtype: torch.dtype) -> str:
    return f"{count * dtype.itemsize / 1e9:.2f} GB"


def _allocated(
    shape: tuple[int, int],
    rank: int,
    dtype: torch.dtype,
    storage: torch.dtype,
    device: torch.device,
    path: Path | None,
    max_bytes: int | None,
) -> Tensor:
    """The empty basis, in memory or in a file."""
    if path is not None:
        return _mapped(path, shape, storage, device)
    limit = free_bytes(device) if max_bytes is None else max_bytes
    check_memory(shape[1], shape[0], rank, dtype, storage, limit)
    return torch.empty(shape, dtype=storage, device=device)


def _mapped(path: Path, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A matrix in a file, of which only what is in use need be in memory."""
    if device.type != "cpu":
        raise InvalidInput(f"basis_file needs device=cpu, not {device}: a file cannot be mapped there")
    n_numbers = shape[0] * shape[1]
    try:
        with path.open("wb") as file:
            # room for all of it now: a disk that is found full through a mapping kills the process
            os.posix_fallocate(file.fileno(), 0, n_numbers * dtype.itemsize)
    except OSError as error:
        arithmetic = f"{shape[0]:,} vectors x {shape[1]:,} parameters x {dtype.itemsize} bytes"
        raise InvalidInput(f"basis_file {path}: {error.strerror}, for {arithmetic} = {_gb(n_numbers, dtype)}") from None
    return torch.from_file(str(path), shared=True, size=n_numbers, dtype=dtype).view(shape)


def _directions(lanczos: _Lanczos, vectors: Tensor, path: Path | None) -> Tensor:
    """V^T Q; for a basis in a file over its first rows, and then no more is kept of the file."""
    in_place = path is not None and lanczos.basis.dtype == lanczos.dtype
    directions = lanczos.combined(vectors, in_place)
    if path is None:
        return directions
    if not in_place:
        path.unlink()
        return directions
    os.truncate(path, directions.nbytes)  # what the basis maps beyond is never read again
    flat = torch.from_file(str(path), shared=True, size=directions.numel(), dtype=directions.dtype)
    return flat.view(directions.shape)


def _notes(values: Tensor, residuals: Tensor, rank: int, share: float, lanczos: _Lanczos) -> tuple[str, ...]:
    n_kept, n_steps, largest = len(residuals), lanczos.n_steps, values[0].item()
    n_negative = int((values < -share * largest).sum())
    n_open = int((residuals > UNCONVERGED * values[:n_kept]).sum())
    notes = {
        f"the Krylov space was exhausted after {n_steps} of {len(lanczos.basis)} products: "
        "the Hessian has no curvature outside it": lanczos.is_exhausted,
        f"{n_kept} of {rank} directions: no other eigenvalue is above {share:.1g} of the largest": n_kept < rank,
        f"{n_steps} products for {rank} directions: at least twice as many are advisable": n_steps < 2 * rank
        and not lanczos.is_exhausted,
        f"{n_negative} of {n_steps} Ritz values are negative, down to {values[-1].item() / largest:.2g} of the "
        "largest, and dropped: the loss is not at a minimum over these layers": n_negative > 0,
        f"{n_open} of {n_kept} directions have not converged (residual above {UNCONVERGED} of the eigenvalue): "
        "a larger krylov_dim helps": n_open > 0,
    }
    return tuple(note for note, holds in notes.items() if holds)
