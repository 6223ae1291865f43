from methods.progress import listening, progress


def test_nobody_listens_by_default():
    assert list(progress(range(3), "steps", total=3)) == [0, 1, 2]


def test_about_a_hundred_messages_whatever_the_total():
    heard = []
    with listening(lambda what, done, total: heard.append((what, done, total))):
        list(progress(range(5000), "steps", total=5000))
    assert len(heard) == 101
    assert heard[0] == ("steps", 0, 5000)
    assert heard[-1] == ("steps", 5000, 5000)


def test_the_last_listener_is_told_and_the_first_again_after_it():
    outer, inner = [], []
    with listening(lambda *message: outer.append(message)):
        with listening(lambda *message: inner.append(message)):
            list(progress([0], "inner", total=1))
        list(progress([0], "outer", total=1))
    assert (inner, outer) == ([("inner", 0, 1), ("inner", 1, 1)], [("outer", 0, 1), ("outer", 1, 1)])
