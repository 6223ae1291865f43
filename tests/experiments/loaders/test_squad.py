"""On fixtures in the publishers' layouts, and on the real files where there are some."""

import json
import shutil

import pytest

from experiments.loaders.squad import SQuAD
from experiments.reading.sources import Absent
from methods.contract import InvalidInput

CONTEXTS = {
    "Lighthouse": "The lighthouse was built in 1820 by Ada Moor, who lived in it until 1851.",
    "Windmill": "The windmill stands on a hill. It has four sails, and the hill has none.",
    "Ferry": "A ferry crosses the bay twice a day.",
}


def asked(name, question, context, answer, start=None):
    """A question as SQuAD v1.1 writes it, with a second answer that does not count."""
    start = context.index(answer) if start is None else start
    answers = [{"answer_start": start, "text": answer}, {"answer_start": 0, "text": context[:3]}]
    return {"id": name, "question": question, "answers": answers}


def questions():
    house, mill, ferry = CONTEXTS.values()
    return {
        "Lighthouse": [
            asked("q3", "When was it built?", house, "1820"),
            asked("q1", "In what was Ada Moor living?", house, "it"),
        ],
        "Windmill": [asked("q2", "How many sails has it?", mill, "four")],
        "Ferry": [asked("q4", "Is there a boat? ", ferry, "A ferry crosses the bay")],
    }


def squad(by_title):
    articles = [
        {"title": title, "paragraphs": [{"context": CONTEXTS[title], "qas": qas}]} for title, qas in by_title.items()
    ]
    return {"data": articles, "version": "1.1"}


def row(title, question, answer):
    return {"context": CONTEXTS[title], "question": question, "answer": answer}


ROWS = [
    row("Windmill", "Where does the windmill stand?", "on a hill"),
    row("Windmill", "What has no sails?", "hill"),
    row("Ferry", "Who sails?", "Nobody at all"),
    *[row("Lighthouse", f"Who lived there, attempt {number}?", "Ada Moor") for number in range(30)],
]


def publish(root, content=None, name="dev-v1.1.json"):
    path = root / "squad" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, bytes):
        content = json.dumps(squad(questions()) if content is None else content).encode()
    path.write_bytes(content)
    return root


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from transformers import BertTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    words = sorted({word for context in CONTEXTS.values() for word in context.lower().split()})
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def answers(split):
    pairs = zip(split.examples, split.spans.tolist(), strict=True)
    return [context[start:end] for (_, context), (start, end) in pairs]


def test_a_question_has_its_context_and_the_place_of_its_first_answer(tmp_path):
    dataset = SQuAD().load(publish(tmp_path), seed=0)
    test = dataset.split("test")
    assert (dataset.modality, dataset.class_names, list(dataset.splits)) == ("text_pair", (), ["test"])
    assert test.labels is None
    assert test.example_ids == ("q1", "q2", "q3", "q4")
    assert test.examples[1] == ("How many sails has it?", CONTEXTS["Windmill"])
    assert answers(test) == ["it", "four", "1820", "A ferry crosses the bay"]
    assert test.spans[1].tolist() == [38, 42]


def test_attributes_are_article_question_word_and_lengths(tmp_path):
    attributes = SQuAD().load(publish(tmp_path), seed=0).split("test").attributes
    assert attributes["title"].tolist() == ["Lighthouse", "Windmill", "Lighthouse", "Ferry"]
    assert attributes["question_word"].tolist() == ["what", "how", "when", "other"]
    assert attributes.loc["q4", ["n_words_question", "n_words_context", "n_words_answer"]].tolist() == [4, 8, 5]


def test_answers_without_a_place_are_searched_and_counted(tmp_path):
    publish(tmp_path, ROWS, "routerlens_dev_4330.json")
    dataset = SQuAD(layout="routerlens").load(tmp_path, seed=0)
    test = dataset.split("test")
    assert test.n_examples == len(ROWS) - 1
    assert answers(test)[:2] == ["on a hill", "hill"]
    assert test.spans[1, 0] == CONTEXTS["Windmill"].index("hill")
    assert set(test.attributes["title"]) == {"unknown"}
    assert [note.split(") ")[1] for note in dataset.notes] == [
        "have an answer that does not stand where it should: left out",
        "have an answer that stands in the context more than once: its first place counts",
    ]
    assert dataset.notes[0].startswith(
        "1 of 33 questions of routerlens_dev_4330.json (the first: 'routerlens_dev_4330-00002'"
    )


def test_an_answer_that_does_not_stand_where_it_should_is_left_out_and_named(tmp_path):
    by_title = questions()
    house = CONTEXTS["Lighthouse"]
    by_title["Lighthouse"] += [asked(f"r{number}", "Who?", house, "Ada Moor") for number in range(30)]
    by_title["Lighthouse"].append(asked("off", "Who?", house, "Ada Moor", start=house.index("Ada") + 1))
    dataset = SQuAD().load(publish(tmp_path, squad(by_title)), seed=0)
    assert "off" not in dataset.split("test").example_ids
    assert dataset.notes[0].startswith("1 of 35 questions of dev-v1.1.json (the first: 'off')")


def test_a_file_whose_answers_are_all_misplaced_is_refused(tmp_path):
    by_title = questions()
    for qas in by_title.values():
        for question in qas:
            question["answers"][0]["answer_start"] += 1
    with pytest.raises(InvalidInput, match=r"dev-v1\.1\.json: 4 of 4 answers do not stand .* of question 'q1'"):
        SQuAD().load(publish(tmp_path, squad(by_title)), seed=0)


def test_questions_without_an_answer_are_left_out(tmp_path):
    by_title = questions()
    by_title["Ferry"].append({"id": "q9", "question": "Why?", "answers": [], "is_impossible": True})
    dataset = SQuAD().load(publish(tmp_path, squad(by_title)), seed=0)
    assert dataset.notes == ("1 of 5 questions of dev-v1.1.json (the first: 'q9') have no answer: left out",)


def test_a_model_is_trained_on_no_context_of_the_test_split(tmp_path):
    publish(tmp_path, name="xquad.en.json", content=squad({"Windmill": questions()["Windmill"]}))
    publish(tmp_path, ROWS, "routerlens_dev_4330.json")
    dataset = SQuAD(layout="xquad", train_file="routerlens_dev_4330.json").load(tmp_path, seed=0)
    assert dataset.split("test").example_ids == ("q2",)
    assert {context for _, context in dataset.split("train").examples} == {CONTEXTS["Lighthouse"]}
    assert dataset.notes[-1].startswith("2 of 32 questions of routerlens_dev_4330.json")
    with pytest.raises(InvalidInput, match=r"xquad\.en\.json: every context is one of the test split"):
        SQuAD(layout="xquad", train_file="xquad.en.json").load(tmp_path, seed=0)


def test_whole_articles_are_trained_on(tmp_path):
    publish(tmp_path)
    dataset = SQuAD(train_share=0.5).load(tmp_path, seed=0)
    titles = [set(split.attributes["title"]) for split in dataset.splits.values()]
    assert not titles[0] & titles[1]
    assert titles[0] | titles[1] == set(CONTEXTS)
    with pytest.raises(InvalidInput, match="both set"):
        SQuAD(train_share=0.5, train_file="a.json").load(tmp_path, seed=0)


def test_pairs_that_are_too_long_for_the_model_are_left_out(tmp_path, tokenizer):
    publish(tmp_path)
    dataset = SQuAD(tokenizer=str(tokenizer), max_tokens=20).load(tmp_path, seed=0)
    assert dataset.split("test").example_ids == ("q4",)
    assert dataset.notes[0].endswith("are longer than 20 tokens: left out")
    assert SQuAD(tokenizer=str(tokenizer)).load(tmp_path, seed=0).notes == ()
    with pytest.raises(InvalidInput, match="every question is longer than 3 tokens: raise max_tokens"):
        SQuAD(tokenizer=str(tokenizer), max_tokens=3).load(tmp_path, seed=0)


def test_a_limit_that_nothing_counts_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"max_tokens is 100, but nothing counts tokens: set dataset.tokenizer too"):
        SQuAD(max_tokens=100).load(publish(tmp_path), seed=0)


def test_a_run_depends_on_what_the_tokenizer_is_and_not_on_where_it_lies(tmp_path, tokenizer):
    copy = tmp_path / "elsewhere"
    shutil.copytree(tokenizer, copy)
    assert SQuAD().identity() == {}
    assert SQuAD(tokenizer=str(copy)).identity() == SQuAD(tokenizer=str(tokenizer)).identity()
    (copy / "tokenizer_config.json").write_text("{}")
    assert SQuAD(tokenizer=str(copy)).identity() != SQuAD(tokenizer=str(tokenizer)).identity()


def test_a_tokenizer_that_is_not_there_is_named(tmp_path):
    publish(tmp_path)
    with pytest.raises(InvalidInput, match=r"dataset\.tokenizer is '/none', expected a folder with a tokenizer"):
        SQuAD(tokenizer="/none").identity()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match=r"dataset\.tokenizer '.*empty' cannot be loaded, expected a tokenizer"):
        SQuAD(tokenizer=str(tmp_path / "empty")).load(tmp_path, seed=0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, r"dev-v1\.1\.json is missing. Get dev-v1\.1\.json from https://rajpurkar"),
        ({"layout": "xquad"}, r"xquad\.en\.json is missing. Get xquad\.en\.json from"),
        ({"layout": "routerlens"}, "routerlens_dev_4330.json is missing. Get data/squad/dev.json from"),
        ({"file": "mine.json"}, r"mine\.json is missing. It is a file of your own"),
    ],
)
def test_without_the_data_it_is_said_what_to_get(tmp_path, settings, said):
    with pytest.raises(Absent, match=said):
        SQuAD(**settings).load(tmp_path, seed=0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read as json"),
        (json.dumps(squad(questions())).encode()[:-30], "cannot be read as json .*line 1"),
        (json.dumps({"data": "Zürich"}, ensure_ascii=False).encode("latin-1"), "cannot be read as json"),
        ({"version": "1.1"}, "this has data 'None', expected a list"),
        ("text", "this has data 'None', expected a list"),
        ({"data": []}, "holds no questions"),
        ([], "holds no questions"),
        ([{"context": "A b.", "question": "What?"}], "row 1 has answer 'None', expected a text"),
        ({"data": [{"title": "A"}]}, "article 'A' has paragraphs 'None', expected a list"),
        ({"data": [{"paragraphs": []}]}, "article 1 has title 'None', expected a text"),
        (
            {"data": [{"title": "A", "paragraphs": [{"context": "b", "qas": [{"id": "q1", "question": "?"}]}]}]},
            "question 'q1' has answers 'None', expected a list",
        ),
        (
            squad({"Ferry": [asked("q1", "?", CONTEXTS["Ferry"], "ferry", start="2")]}),
            "an answer to question 'q1' has answer_start '2', expected a whole number",
        ),
        (squad({"Ferry": questions()["Ferry"] * 2}), "question 'q4' is there twice"),
    ],
)
def test_a_file_in_another_format_is_refused_with_the_place(tmp_path, content, said):
    with pytest.raises(InvalidInput, match=rf"dev-v1\.1\.json:? {said}"):
        SQuAD().load(publish(tmp_path, content), seed=0)


def test_the_real_files(data):
    root = data("squad/xquad.en.json", "squad/routerlens_dev_4330.json")
    dataset = SQuAD(layout="xquad", train_file="routerlens_dev_4330.json").load(root, seed=0)
    assert {name: split.n_examples for name, split in dataset.splits.items()} == {"test": 1_190, "train": 4_330}
    titles = dataset.split("test").attributes["title"]
    assert titles.nunique() == 48
    assert {"Packet_switching", "Civil_disobedience"} <= set(titles)
    assert len(dataset.notes) == 1
    assert dataset.notes[0].startswith("492 of 4,330")
