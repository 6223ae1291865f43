"""Words that are more frequent in a slice of texts than elsewhere."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.sparse import csc_matrix
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

from experiments.describing.names import shortened
from experiments.describing.texts import TOKEN

RARE = 0.005  # added to both frequencies before tokens are ranked, as in the authors' code: rare ones say little
LONGEST = 24  # letters of a token that are shown: some texts hold a hundred thousand without a space


def token_ratios(texts: tuple[str, ...], member: np.ndarray, weight: np.ndarray, smoothing: float) -> pd.DataFrame:
    """How much more frequent each token is in a slice than in all texts; English stop words are left out.

    Parameters
    ----------
    texts : tuple of str, length n
    member : array, shape (n,), bool
    weight : array, shape (n,)
        How much each text counts in the slice.
    smoothing : float, >= 0
        Texts with the token, and as many without it, that are added to the slice and to all.

    Returns
    -------
    DataFrame
        Columns group (the token), value (the ratio), n (members that hold it), rank: the largest of it first.
    """
    tokens, held = _counted(texts)  # (t,), (n, t)
    count, of = held.T @ weight, weight.sum()  # (t,), in all
    count_all, of_all = held.T @ np.ones(len(texts)), len(texts)
    ratio = (count + smoothing) / (of + 2 * smoothing) / ((count_all + smoothing) / (of_all + 2 * smoothing))
    rank = (count / of + RARE) / (count_all / of_all + RARE)
    table = pd.DataFrame({"group": tokens, "value": ratio, "n": held.T @ member.astype(np.int64), "rank": rank})
    first = table[~table["group"].isin(ENGLISH_STOP_WORDS)].sort_values(["rank", "group"], ascending=[False, True])
    return first.assign(group=first["group"].map(lambda token: shortened(token, LONGEST)))


@lru_cache(maxsize=2)  # the runs of a data set follow each other
def _counted(texts: tuple[str, ...]) -> tuple[np.ndarray, csc_matrix]:
    """All tokens, and which text holds which: shapes (t,) and (n, t)."""
    vectorizer = CountVectorizer(binary=True, token_pattern=TOKEN)
    held = csc_matrix(vectorizer.fit_transform(texts))
    return vectorizer.get_feature_names_out(), held
