"""dcbench's problems, downloaded from a bucket of the test's own and read."""

import io
import os
import shutil
import stat
import tarfile

import numpy as np
import pytest
import torch

from experiments import fetch as fetching
from experiments.fetch import fetch
from experiments.loaders import dcbench
from experiments.loaders.dcbench import DCBench
from experiments.reading.dcbench import INDEX, read_index, read_problem
from experiments.reading.extraction import unpack
from methods.errors import InvalidInput
from tests.experiments import test_fetch as serving
from tests.experiments.reading import test_dcbench as writing

server = serving.server
ARTIFACTS = "slice_discovery/problem/artifacts"
READ = ("activations", "test_predictions", "test_slices", "val_predictions")
PROBLEMS = {"p_1": ("correlation", "celeba"), "p_2": ("rare", "imagenet"), "p_3": ("rare", "celeba")}


def entry_text(problem):
    kind, dataset = PROBLEMS[problem]
    attributes = {**writing.ATTRIBUTES, "slice_category": kind, "dataset": dataset}
    text = writing.index_text(attributes, problem, number=int(problem[-1]))
    return text.replace(f"{ARTIFACTS}/p_1/", f"{ARTIFACTS}/{problem}/")


def columns_of(problem):
    """As the tests of the reader have them, the activations of each problem shifted by its number."""
    columns = writing.made_columns()
    columns["activations"]["act"] += int(problem[-1])
    return columns


def packed(folder):
    """A folder as dcbench packs it: the content at the archive's root."""
    with tarfile.open(fileobj=(written := io.BytesIO()), mode="w:gz") as archive:
        archive.add(folder, arcname=".")
    return written.getvalue()


@pytest.fixture
def bucket(server, tmp_path, monkeypatch):
    """The problems in a bucket; gives the files of its server by their paths in the bucket."""
    monkeypatch.setattr(dcbench, "BUCKET", server.url("dcbench"))
    for problem in PROBLEMS:
        for name, values in columns_of(problem).items():
            writing.write_panel(panel := tmp_path / "panel.mk", values, older=False)
            (panel / "state.dill").write_bytes(b"never opened")
            serve(server, f"{ARTIFACTS}/{problem}/{name}.mk.tar.gz", packed(panel))
    shutil.rmtree(tmp_path / "panel.mk")
    serve(server, INDEX, "".join(map(entry_text, PROBLEMS)).encode())
    return server


def serve(server, path, content, **how):
    server.files[f"dcbench/{path}"] = serving.File(content, **how)


@pytest.fixture
def root(workspace, monkeypatch):
    """The data root."""
    monkeypatch.setenv("SLICEBENCH_DATA", str(workspace / "data"))
    return workspace / "data"


def panels(root):
    return sorted(path.relative_to(root / "dcbench" / ARTIFACTS).as_posix() for path in root.rglob("*.mk"))


def paths(problem, names=READ):
    return [f"{problem}/{name}.mk" for name in names]


def test_the_problems_of_a_kind_come_and_hold_what_was_packed(bucket, root, slicebench):
    done = slicebench("fetch", "dcbench", "kind=rare")
    assert done.exit_code == 0, done.output
    assert "8 artifacts of 2 problems: 0 are there, 8 are to come" in done.stderr
    assert "activations.mk.tar.gz has come (8 of 8)" in done.stderr
    assert panels(root) == [*paths("p_2"), *paths("p_3")]
    for entry in read_index(root / "dcbench" / INDEX)[1:]:
        content, columns = read_problem(root / "dcbench", entry), columns_of(entry.container_id)
        rows = [columns["activations"]["id"].tolist().index(one) for one in content.test.ids]
        assert len(rows) == writing.N_TEST
        assert torch.equal(content.test.stored.embeddings, torch.tensor(columns["activations"]["act"][rows]))
        assert content.test.labels.tolist() == columns["test_predictions"]["target"][::-1].tolist()
        assert content.true_slices.sum(dim=0).tolist() == columns["test_slices"]["slices"].sum(axis=0).tolist()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([], ["p_1", "p_2", "p_3"]),
        (["problem=p_2"], ["p_2"]),
        (["problem=[p_3,p_1]"], ["p_1", "p_3"]),
        (["dataset=celeba"], ["p_1", "p_3"]),
        (["dataset=celeba", "kind=rare"], ["p_3"]),
    ],
)
def test_what_is_chosen_comes_and_nothing_else(bucket, root, slicebench, settings, expected):
    done = slicebench("fetch", "dcbench", *settings)
    assert done.exit_code == 0, done.output
    assert panels(root) == [path for problem in expected for path in paths(problem)]


def test_either_embedding_may_be_asked_for(bucket, root, slicebench):
    assert slicebench("fetch", "dcbench", "problem=p_1", "embedding=clip").exit_code == 0
    assert panels(root) == paths("p_1", sorted({*READ, "clip"} - {"activations"}))
    done = slicebench("fetch", "dcbench", "problem=p_1")
    assert "4 artifacts of 1 problem: 3 are there, 1 are to come" in done.stderr
    assert panels(root) == paths("p_1", sorted({*READ, "clip"}))


def test_what_is_there_does_not_come_again(bucket, root, slicebench):
    slicebench("fetch", "dcbench", "kind=correlation")
    assert len(bucket.requests) == 1 + 4
    done = slicebench("fetch", "dcbench", "kind=rare")
    assert done.exit_code == 0, done.output
    assert len(bucket.requests) == 1 + 12
    done = slicebench("fetch", "dcbench")
    assert done.exit_code == 0, done.output
    assert "12 artifacts of 3 problems: 12 are there, 0 are to come" in done.stderr
    assert len(bucket.requests) == 1 + 12


def test_where_everything_is_there_nothing_is_written(bucket, root):
    (root / "dcbench" / INDEX).parent.mkdir(parents=True)
    (root / "dcbench" / INDEX).write_text(entry_text("p_1"))
    for name, values in columns_of("p_1").items():
        writing.write_panel(root / "dcbench" / ARTIFACTS / "p_1" / f"{name}.mk", values, older=False)
    assert not fetch(DCBench().source, root)
    assert not (root / "dcbench" / ".fetch").exists()
    assert bucket.requests == []


def test_an_artifact_that_two_problems_share_comes_once(bucket, root, slicebench):
    shared = entry_text("p_2").replace(f"{ARTIFACTS}/p_2/activations", f"{ARTIFACTS}/p_1/activations")
    serve(bucket, INDEX, (entry_text("p_1") + shared).encode())
    done = slicebench("fetch", "dcbench")
    assert done.exit_code == 0, done.output
    assert "7 artifacts of 2 problems" in done.stderr
    assert len(bucket.requests) == 1 + 7


def test_a_panel_that_somebody_put_there_is_left_alone(bucket, root, slicebench):
    own = root / "dcbench" / ARTIFACTS / "p_1" / "activations.mk"
    columns = columns_of("p_1")["activations"]
    writing.write_panel(own, {**columns, "act": np.zeros((70, 4), np.float32)}, older=False)
    (own.parent / "test_slices.mk").mkdir()  # empty: nobody's
    done = slicebench("fetch", "dcbench", "problem=p_1")
    assert done.exit_code == 0, done.output
    assert "1 are there, 3 are to come" in done.stderr
    (entry, *_) = read_index(root / "dcbench" / INDEX)
    assert not read_problem(root / "dcbench", entry).test.stored.embeddings.any()


def test_a_file_that_was_lost_comes_again(bucket, root, slicebench):
    slicebench("fetch", "dcbench", "problem=p_1")
    lost = root / "dcbench" / ARTIFACTS / "p_1" / "activations.mk" / "meta.yaml"
    before = lost.read_bytes()
    lost.unlink()
    done = slicebench("fetch", "dcbench", "problem=p_1")
    assert done.exit_code == 0, done.output
    assert "3 are there, 1 are to come" in done.stderr
    assert lost.read_bytes() == before


def test_a_run_that_was_broken_off_goes_on(bucket, root, slicebench):
    path = f"{ARTIFACTS}/p_1/test_slices.mk.tar.gz"
    content = bucket.files[f"dcbench/{path}"].content
    serve(bucket, path, content, drops=[300, 0, 0, 0])
    done = slicebench("fetch", "dcbench", "problem=p_1")
    assert done.exit_code == 2
    assert "the same command goes on" in done.stderr.splitlines()[-1]
    n_there, before = len(panels(root)), len(bucket.requests)
    done = slicebench("fetch", "dcbench", "problem=p_1")
    assert done.exit_code == 0, done.output
    assert f"{n_there} are there, {4 - n_there} are to come" in done.stderr
    assert len(bucket.requests) == before + 4 - n_there
    assert bucket.requests[before]["Range"] == "bytes=300-"


def test_unpacking_that_was_broken_off_is_done_again(bucket, root, monkeypatch):
    def halfway(archive, folder, max_bytes):
        unpack(archive, folder, max_bytes)
        (folder / "meta.yaml").unlink()
        raise KeyboardInterrupt

    source = DCBench(problem="p_1").source
    monkeypatch.setattr(fetching, "unpack", halfway)
    with pytest.raises(KeyboardInterrupt):
        fetch(source, root)
    before = len(bucket.requests)
    monkeypatch.setattr(fetching, "unpack", unpack)
    assert fetch(source, root)
    assert len(bucket.requests) == before + 3
    assert all((folder / "meta.yaml").is_file() for folder in root.rglob("*.mk"))
    assert not list(root.rglob("*.tar.gz"))


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("problem=p_11", "'p_11'; the nearest is p_1 (all: p_1, p_2, p_3)"),
        ("dataset=celebs", "'celebs'; the nearest is celeba (all: celeba, imagenet)"),
        ("kind=noisy_label", "'noisy_label'"),
        ("kind=rear", "dataset.kind is 'rear', expected rare or correlation or noisy_label"),
        ("knd=rare", "dataset has no setting 'knd'; the nearest is kind"),
    ],
)
def test_a_mistake_is_explained_in_one_line(bucket, root, slicebench, setting, says):
    for _ in range(2):  # without the index, and with it
        done = slicebench("fetch", "dcbench", setting)
        assert done.exit_code == 2
        last = done.stderr.splitlines()[-1]
        assert says in last
        assert "anew" not in last
        assert "Traceback" not in done.output
    assert panels(root) == []


@pytest.mark.parametrize("bad", ["- !!python/object/apply:os.mkdir ['planted']\n", "- !Other {}\n", "- [\n", "a: 1\n"])
def test_a_bad_index_is_refused_and_nothing_in_it_is_run(bucket, root, slicebench, workspace, bad):
    serve(bucket, INDEX, bad.encode())
    for _ in range(2):
        done = slicebench("fetch", "dcbench")
        assert done.exit_code == 2
        last = done.stderr.splitlines()[-1]
        assert INDEX in last
        assert f"(to have {INDEX} anew, move it away)" in last
        assert "Traceback" not in done.output
    assert not (workspace / "planted").exists()
    assert len(bucket.requests) == 1
    (root / "dcbench" / INDEX).unlink()
    serve(bucket, INDEX, entry_text("p_1").encode())
    assert slicebench("fetch", "dcbench").exit_code == 0


@pytest.mark.parametrize("away", ["../../evil", "/evil", "a/../../../evil", "a\\evil", "x" * 300])
def test_an_artifact_elsewhere_is_refused(bucket, root, slicebench, workspace, away):
    text = entry_text("p_1").replace(f"{ARTIFACTS}/p_1/test_slices", f"'{away}'")
    serve(bucket, INDEX, text.encode())
    done = slicebench("fetch", "dcbench")
    assert done.exit_code == 2
    assert "problem p_1: artifact_id of test_slices is" in done.stderr.splitlines()[-1]
    assert len(bucket.requests) == 1
    assert serving.visible(workspace) == [f"data/dcbench/{INDEX}"]


def test_an_artifact_may_have_signs_that_mean_something_in_an_address(bucket, root, slicebench):
    text = entry_text("p_1").replace(f"{ARTIFACTS}/p_1/test_slices", f"'{ARTIFACTS}/p_1/a b?c=#%2e&é'")
    serve(bucket, INDEX, text.encode())
    content = bucket.files[f"dcbench/{ARTIFACTS}/p_1/test_slices.mk.tar.gz"].content
    serve(bucket, f"{ARTIFACTS}/p_1/a%20b%3Fc%3D%23%252e%26%C3%A9.mk.tar.gz", content)
    done = slicebench("fetch", "dcbench")
    assert done.exit_code == 0, done.output
    assert (root / "dcbench" / ARTIFACTS / "p_1" / "a b?c=#%2e&é.mk" / "meta.yaml").is_file()


def a_member(name, kind=tarfile.REGTYPE, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


BAD_MEMBERS = {
    "is an absolute path": a_member("/evil", content=b"evil"),
    "leads out of the folder": a_member("../../../../../evil", content=b"evil"),
    "is a symbolic link": a_member("link", tarfile.SYMTYPE, linkname="/etc/passwd"),
    "is a hard link": a_member("link", tarfile.LNKTYPE, linkname="/etc/passwd"),
    "is a device": a_member("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
    "unpacked it has more than": a_member("large", content=bytes(10**6)),
}


@pytest.mark.parametrize("says", sorted(BAD_MEMBERS))
def test_a_dangerous_archive_is_refused_and_the_others_come(bucket, root, slicebench, workspace, monkeypatch, says):
    monkeypatch.setattr(fetching, "GIGABYTE", 100_000)
    path = f"{ARTIFACTS}/p_1/test_slices.mk.tar.gz"
    good = bucket.files[f"dcbench/{path}"].content
    info, content = BAD_MEMBERS[says]
    with tarfile.open(fileobj=(written := io.BytesIO()), mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("first"))
        archive.addfile(info, io.BytesIO(content))
    serve(bucket, path, written.getvalue())
    done = slicebench("fetch", "dcbench", "problem=p_1")
    assert done.exit_code == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("slicebench: 1 of 4 did not come, the first of them: ")
    assert says in last
    assert bucket.url(f"dcbench/{path}") in last
    assert panels(root) == sorted(set(paths("p_1")) - {"p_1/test_slices.mk"})
    assert not [path for path in serving.below(workspace) if "evil" in path or not path.startswith("data/dcbench/")]
    assert not [path for path in workspace.rglob("*") if stat.S_ISLNK(os.lstat(path).st_mode)]

    serve(bucket, path, good)
    before = len(bucket.requests)
    done = slicebench("fetch", "dcbench", "problem=p_1")
    assert done.exit_code == 0, done.output
    assert len(bucket.requests) == before + 1


def test_an_artifact_that_the_bucket_lacks_does_not_keep_the_others_from_coming(bucket, root, slicebench):
    lacking = f"dcbench/{ARTIFACTS}/p_2/val_predictions.mk.tar.gz"
    bucket.files.pop(lacking)
    done = slicebench("fetch", "dcbench")
    assert done.exit_code == 2
    last = done.stderr.splitlines()[-1]
    assert f"1 of 12 did not come, the first of them: {bucket.url(lacking)} answers 404 Not Found" in last
    assert f"By hand: Get {INDEX} and the artifacts that it names from {dcbench.BUCKET}. Put it into" in last
    assert len(panels(root)) == 11


def test_an_index_that_the_bucket_lacks_is_said(bucket, root, slicebench):
    bucket.files.pop(f"dcbench/{INDEX}")
    done = slicebench("fetch", "dcbench")
    assert done.exit_code == 2
    assert f"{bucket.url(f'dcbench/{INDEX}')} answers 404 Not Found" in done.stderr.splitlines()[-1]


def test_a_server_that_falls_silent_ends_it_for_now(bucket, root):
    bucket.files[f"dcbench/{INDEX}"].answers = [503] * 9
    with pytest.raises(InvalidInput, match="the same command goes on"):
        fetch(DCBench().source, root)
