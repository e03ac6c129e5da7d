"""The embedded dataset: rendered faces, made once and kept in a cache folder."""

from __future__ import annotations

import csv
import io
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from lmopt.data.dataset import SPLITS, Dataset, Split
from lmopt.data.labels import column_of
from lmopt.data.load import load_dataset
from lmopt.data.readers.folder import BOX, VISIBLE
from lmopt.data.synthetic.render import GENERATOR_VERSION, LABELS, render_face
from lmopt.errors import InputError
from lmopt.files import default_cache, whole_folder

NAME = "rendered faces"
_CHUNK = 25
_QUALITY = 92


def rendered_dataset(
    *,
    train: int,
    validation: int,
    test: int,
    seed: int = 0,
    cache: Path | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Dataset:
    """Returns rendered faces with exact landmarks, rendering them when the cache has none.

    Args:
        train: Training faces.
        validation: Validation faces.
        test: Test faces.
        seed: Face k of a split depends on seed, split and k alone.
        cache: Folder that keeps rendered sets; None is $LMOPT_CACHE or ~/.cache/lmopt.
        on_progress: Called with the number of faces rendered so far.

    Raises:
        InputError: The cache folder cannot be written.
    """
    counts: dict[Split, int] = {"train": train, "validation": validation, "test": test}
    name = f"v{GENERATOR_VERSION}-seed{seed}-{train}-{validation}-{test}"
    folder = (default_cache() if cache is None else cache) / "rendered" / name
    table = folder / "landmarks.csv"
    if not table.is_file():
        try:
            render_into(folder, counts, seed, on_progress)
        except InputError as error:
            if not table.is_file():  # another process was not quicker
                raise InputError(
                    f"cannot keep rendered faces: {error.what}",
                    where=str(folder),
                    hint="free some space or point LMOPT_CACHE at another folder",
                ) from error
    return replace(load_dataset([folder]), name=NAME)


def render_into(
    folder: Path,
    counts: Mapping[Split, int],
    seed: int,
    on_progress: Callable[[int], None] | None = None,
) -> None:
    """Renders faces into a new folder of the plain layout, whole or not at all.

    Args:
        folder: Must not exist yet, or be empty.
        counts: Faces per split.
        seed: Face k of a split depends on seed, split and k alone.
        on_progress: Called with the number of faces rendered so far.

    Raises:
        InputError: The folder has something in it or cannot be written.
    """
    with whole_folder(folder) as partial_folder:
        (partial_folder / "images").mkdir()
        rows: list[list[str]] = []
        jobs = [(split, k) for split, count in counts.items() for k in range(count)]
        for row in _rows(jobs, seed, partial_folder / "images"):
            rows.append(row)
            if on_progress is not None:
                on_progress(len(rows))
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows([_columns(), *rows])
        (partial_folder / "landmarks.csv").write_text(table.getvalue(), encoding="utf-8")


def _rows(jobs: list[tuple[Split, int]], seed: int, images: Path) -> Iterator[list[str]]:
    work = partial(_render_one, seed=seed, images=images)
    workers = min(len(os.sched_getaffinity(0)), -(-len(jobs) // _CHUNK))
    if workers < 2:
        yield from map(work, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _end_with_parent) as pool:
        try:
            yield from pool.map(work, jobs, chunksize=_CHUNK)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _end_with_parent() -> None:
    """Ends a worker whose parent was killed; it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _render_one(job: tuple[Split, int], *, seed: int, images: Path) -> list[str]:
    import cv2

    cv2.setNumThreads(1)
    split, index = job
    face = render_face(seed, SPLITS.index(split), index)
    file = f"{split}_{index:05d}.jpg"
    bgr = cv2.cvtColor(face.picture, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise OSError(f"JPEG encoding of {file} failed")
    (images / file).write_bytes(data.tobytes())
    numbers = [*face.box, *face.landmarks.reshape(-1)]
    labels = [f"{face.labels[name]:.4g}" for name in LABELS]
    seen = face.visible.astype(int).tolist()
    return [file, split, f"{split}{index}", *labels, *(f"{v:.3f}" for v in numbers), *seen]


def _columns() -> list[str]:
    points = [f"{axis}{k}" for k in range(68) for axis in "xy"]
    flags = [f"{VISIBLE}{k}" for k in range(68)]
    return ["file", "role", "group", *map(column_of, LABELS), *BOX, *points, *flags]
