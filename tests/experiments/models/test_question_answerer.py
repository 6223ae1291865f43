"""Question answering, on tiny checkpoints with random weights that transformers itself saved."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from experiments.contract import Dataset, Split
from experiments.inference import LOGITS, forward
from experiments.models.question_answerer import OUTSIDE, FineTunedQuestionAnswerer, QuestionAnswerer
from experiments.settings import Compute
from experiments.training import train_or_load
from methods.contract import InvalidInput, Unsupported

AUTO = "AutoModelForQuestionAnswering"
# question, context, answer
ROWS = [
    ("who made it ?", "the film was made by anna .", "anna"),
    ("where is it ?", "the very long and boring film is in paris .", "in paris"),
    ("where ?", "Rome", "Rome"),
    ("who ?", "café unknowns  by anna un rome", "unknowns  by anna"),
]


def dataset(rows=ROWS, modality="text_pair"):
    def split(name):
        ids = tuple(f"{name}-{i}" for i in range(len(rows)))
        spans = [(context.index(answer), context.index(answer) + len(answer)) for _, context, answer in rows]
        pairs = [(question, context) for question, context, _ in rows]
        return Split(ids, pairs, None, pd.DataFrame(index=pd.Index(ids)), spans=torch.tensor(spans))

    return Dataset("toy", modality, (), {name: split(name) for name in ("train", "test")}, "toy")


@pytest.fixture(scope="module", params=["Bert", "DistilBert"])
def folder(request, text_checkpoint):
    return str(text_checkpoint(f"{request.param}ForQuestionAnswering"))


@pytest.fixture(scope="module")
def encoder(text_checkpoint):
    return str(text_checkpoint("BertModel"))


def predicted(model, split, batch_size=256):
    found = forward(model, split, [LOGITS, model.final_hidden], Compute(batch_size=batch_size))
    return torch.from_numpy(found[LOGITS]), torch.from_numpy(found[model.final_hidden])


@pytest.mark.parametrize("batch_size", [1, 4])
def test_logits_are_transformers_own_inside_the_context_and_finite_elsewhere(folder, theirs, batch_size):
    data = dataset()
    split = data.split("test")
    model = QuestionAnswerer(folder).build(data)
    logits, _ = predicted(model, split, batch_size)
    assert logits.shape == (4, 2 * 64)
    assert logits.isfinite().all()
    for row, output in enumerate(theirs(AUTO, folder, split.examples)):
        inside = model.preprocess(split.examples[row])[3].bool()  # (64,)
        for half, expected in zip(logits[row].chunk(2), (output.start_logits, output.end_logits), strict=True):
            known = inside[: expected.shape[1]]
            torch.testing.assert_close(half[inside], expected[0, known], rtol=1e-4, atol=1e-5)
            assert (half[~inside] == OUTSIDE).all()


def test_only_tokens_of_the_context_can_be_an_answer(folder):
    inside = QuestionAnswerer(folder).build(dataset()).preprocess(("who made it ?", "anna ."))[3]
    assert inside.nonzero().flatten().tolist() == [6, 7]  # [CLS] who made it ? [SEP] anna . [SEP]


def test_targets_are_the_answer_s_first_and_last_token(folder):
    data = dataset()
    model = QuestionAnswerer(folder).build(data)
    targets = model.targets(data.split("test"))
    assert targets.dtype == torch.int64
    # the last: [CLS] who ? [SEP] [UNK] un ##known ##s by anna ...
    assert targets.tolist() == [[11, 11], [13, 14], [4, 4], [5, 9]]
    assert model.targets(data.split("test")) is targets


def test_the_loss_is_the_mean_of_two_cross_entropies(folder, theirs):
    """Transformers' own, once positions outside the context are taken out of it."""
    data = dataset()
    split = data.split("test")
    model = QuestionAnswerer(folder).build(data)
    logits, _ = predicted(model, split)
    targets = model.targets(split)
    found = model.loss(logits, targets)
    for row, output in enumerate(theirs(AUTO, folder, split.examples)):
        inside = model.preprocess(split.examples[row])[3].bool()
        first, log_probabilities = int(inside.nonzero()[0]), []
        for half, place in ((output.start_logits, targets[row, 0]), (output.end_logits, targets[row, 1])):
            log_probabilities.append(half[0, inside[: half.shape[1]]].log_softmax(dim=0)[place - first])
        torch.testing.assert_close(found[row], -sum(log_probabilities) / 2, rtol=1e-4, atol=1e-5)


def test_an_answer_is_right_where_both_ends_are(folder):
    model = QuestionAnswerer(folder).build(dataset())
    logits = torch.zeros(3, 8)
    logits[:, 1] = 1  # starts at 1
    logits[:, 4 + 2] = 1  # ends at 2
    assert model.correct(logits, torch.tensor([[1, 2], [1, 3], [0, 2]])).tolist() == [True, False, False]


def test_the_embedding_is_the_first_token_s_last_hidden_state(folder, theirs):
    from transformers import AutoModel

    data = dataset()
    model = QuestionAnswerer(folder).build(data)
    _, embeddings = predicted(model, data.split("test"))
    encoder = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    rows = torch.stack([model.preprocess(pair) for pair in data.split("test").examples])
    with torch.inference_mode():
        states = encoder(**model.preprocess.args[0].arguments(rows)).last_hidden_state
    torch.testing.assert_close(embeddings, states[:, 0])


def test_a_pair_that_is_too_long_is_named_with_what_to_do(folder):
    rows = [*ROWS, ("who ?", "anna " * 70, "anna")]
    data = dataset(rows)
    model = QuestionAnswerer(folder).build(data)
    with pytest.raises(
        InvalidInput, match=r"question .test-4. has 75 tokens .* at most 64: .*tokenizer=NAME .*max_tokens=64"
    ):
        model.targets(data.split("test"))
    with pytest.raises(InvalidInput, match=r"the question 'who \?' has 75 tokens"):
        model.preprocess(data.split("test").examples[4])


def test_an_answer_without_a_token_is_named(folder):
    data = dataset([*ROWS, ("who ?", "by   anna", "   ")])
    with pytest.raises(InvalidInput, match=r"question 'test-4': the answer's characters 2 to 5 .* hold no token"):
        QuestionAnswerer(folder).build(data).targets(data.split("test"))


def test_blanks_around_an_answer_do_not_matter(folder):
    data = dataset([("who ?", "by   anna  un", "   anna  ")])
    assert QuestionAnswerer(folder).build(data).targets(data.split("test")).tolist() == [[5, 5]]


def test_without_answers_there_are_no_targets(folder):
    pairs = Split(("a",), [("who ?", "anna")], None, pd.DataFrame(index=pd.Index(["a"])))
    assert QuestionAnswerer(folder).build(dataset()).targets(pairs) is None


def test_single_texts_are_refused(folder):
    with pytest.raises(Unsupported, match="question answering takes pairs of texts; toy has modality text"):
        QuestionAnswerer(folder).build(dataset(modality="text"))


def test_an_encoder_without_a_head_is_refused_unless_it_is_trained_here(encoder):
    with pytest.raises(InvalidInput, match=r"lacks the weights qa_outputs.bias of BertForQuestionAnswering"):
        QuestionAnswerer(encoder).build(dataset())
    assert FineTunedQuestionAnswerer(encoder).build(dataset()).module.qa_outputs.weight.shape == (2, 32)


def test_it_learns_where_the_answers_are(settings_of, own_cache, encoder):
    options = ("model.training.epochs=60", "model.training.learning_rate=0.003", "model.training.batch_size=4")
    settings = settings_of("model=minilm_squad", f"model.name={encoder}", *options)
    data = dataset()
    model = train_or_load(settings, data)
    split = data.split("test")
    logits, _ = predicted(model, split)
    assert model.correct(logits, model.targets(split)).all()


@pytest.fixture
def xquad(tmp_path):
    """XQuAD's English part as its publisher lays it out, 40 questions."""

    def entry(number, question, context, answer):
        answers = [{"text": answer, "answer_start": context.index(answer)}]
        return {"context": context, "qas": [{"id": f"q{number:03d}", "question": question, "answers": answers}]}

    rows = [(question, f"{context} {i}", answer) for i in range(10) for question, context, answer in ROWS]
    paragraphs = [entry(number, *row) for number, row in enumerate(rows)]
    articles = [{"title": title, "paragraphs": paragraphs[start::2]} for start, title in enumerate(("Anna", "Paris"))]
    (tmp_path / "data/squad").mkdir(parents=True)
    (tmp_path / "data/squad/xquad.en.json").write_text(json.dumps({"version": "1.1", "data": articles}))
    return ("dataset=squad", "dataset.layout=xquad", f"paths.data={tmp_path / 'data'}")


@pytest.mark.parametrize("method", ["spotlight", "gmm"])
def test_slices_of_questions(slicebench, xquad, folder, method):
    few = ("dataset.slice_size=10", "dataset.n_components=2")
    model = ("model=question_answerer", f"model.name={folder}")
    done = slicebench("run", *xquad, *model, f"method={method}", *few)
    assert done.exit_code == 0, done.stderr
    (path,) = Path("outputs").rglob("examples.parquet")
    examples = pd.read_parquet(path)
    assert len(examples) == 40
    assert examples["label"].isna().all()
    assert (examples["loss"] > 0).any()


def test_methods_that_need_labels_refuse_questions(slicebench, xquad, folder):
    done = slicebench("run", *xquad, "model=question_answerer", f"model.name={folder}", "method=confusion")
    assert done.exit_code == 2
    assert "needs labels" in done.stderr


def test_influence_embeddings_of_questions_are_refused(slicebench, xquad, folder):
    model = ("model=question_answerer", f"model.name={folder}")
    done = slicebench("run", *xquad, *model, "embedding=influence", "embedding.hessian_split=test")
    assert done.exit_code == 2
    assert "no labels" in done.stderr


@pytest.mark.usefixtures("real_minilm")
def test_the_real_questions(data):
    """Places of answers as characters are the answers, read back from the tokens."""
    from experiments.loaders.squad import SQuAD
    from experiments.networks.pretrained import MINILM

    loaded = SQuAD(layout="xquad", tokenizer=MINILM).load(data("squad"), seed=0)
    split, model = loaded.split("test"), FineTunedQuestionAnswerer().build(loaded)
    assert 1_100 < split.n_examples <= 1_190
    targets = model.targets(split)
    tokens = model.preprocess.args[0]
    for row in range(0, split.n_examples, 10):
        (question, context), (start, end) = split.examples[row], split.spans[row].tolist()
        offsets = tokens.encode((question, context)).offsets
        first, last = targets[row].tolist()
        found = context[offsets[first][0] : offsets[last][1]]
        assert context[start:end] in found
        assert found.split() != []
