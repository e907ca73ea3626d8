"""What travels: calls that name their culprit, values that prove themselves, exceptions that stay what they are."""

from __future__ import annotations

import functools
import math
import pickle
import sys
import threading
import time
import types

import cloudpickle
import lane_pickles as pickles
import lane_tasks as tasks
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ids import stable

from resilient_exec.model.errors import NotSendable
from resilient_exec.wire import culprit, payload
from resilient_exec.wire.payload import Unsendable, pack_call, pack_exception, pack_value, unpack_call, unpack_exception

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(st.tuples(VALUES), st.dictionaries(st.text(min_size=1), VALUES, max_size=3))
@settings(max_examples=100, deadline=None)
def test_a_call_comes_out_as_it_went_in(args, kwargs):
    assert unpack_call(pack_call(tasks.double, args, kwargs)) == (tasks.double, args, kwargs)


@given(VALUES)
@settings(max_examples=100, deadline=None)
def test_a_value_comes_out_as_it_went_in(value):
    assert payload.unpack_value(pack_value(value)) == value


LOCK = threading.Lock()


def closed_over(lock):
    return lambda: lock


class Held:
    def __init__(self, inner):
        self.inner = inner

    def method(self):
        return self.inner


@pytest.mark.parametrize(
    ("call", "culprit"),
    [
        ((functools.partial(tasks.double, LOCK), (), {}), "the function"),
        ((tasks.double, (LOCK,), {}), "argument 1"),
        ((tasks.double, (1, [LOCK]), {}), "argument 2"),
        ((tasks.double, (1,), {"x": 2, "how": {"deep": LOCK}}), "argument 'how'"),
    ],
    ids=["function", "first", "second", "by name"],
)
def test_what_does_not_pickle_is_named(call, culprit):
    with pytest.raises(Unsendable) as caught:
        pack_call(*call)
    assert str(caught.value).startswith(culprit)
    assert "cannot pickle" in str(caught.value)
    assert "lock" in str(caught.value)
    assert isinstance(caught.value.__cause__, TypeError)


LOCKED = r"is a _thread.lock \(TypeError: cannot pickle '_thread.lock' object\)"
CLOSURE = r"the function, .*: closure variable"
REMEDY = r"; leave it out in __getstate__, make it in the worker, or use fresh_locks=True$"


@pytest.mark.parametrize(
    ("fn", "args", "kwargs", "message"),
    [
        (tasks.double, (Held(Held(LOCK)),), {}, r"argument 1 \('x'\), of type test_payload.Held, .*: x.inner.inner "),
        (tasks.double, (), {"x": [Held(LOCK)]}, r"argument 'x', of type builtins.list, .*: x\[0\].inner "),
        (tasks.double, (1, [LOCK]), {}, r"argument 2, of type .*: \(argument 2\)\[0\] "),
        (lambda *agents: agents, (1, Held(LOCK)), {}, r"argument 2 \('agents\[1\]'\), .*: agents\[1\].inner "),
        (dict, (Held(LOCK),), {}, r"argument 1, of type .*: \(argument 1\).inner "),
        (functools.partial(tasks.double, Held(LOCK)), (), {}, r"the function, .*: \(the function\).args\[0\].inner "),
        (Held(LOCK).method, (), {}, r"the function, of type builtins.method, .*: \(the function\).__self__.inner "),
        (closed_over(LOCK), (), {}, r"the function, .*: closure variable 'lock' of the function "),
    ],
    ids=["positional", "by name", "one too many", "starred", "no signature", "partial", "bound method", "closure"],
)
def test_the_way_to_what_does_not_pickle_is_told_in_one_line(fn, args, kwargs, message):
    remedy = REMEDY.replace(" leave it out in __getstate__,", "") if message.startswith(CLOSURE) else REMEDY
    with pytest.raises(Unsendable, match=f"^{message}{LOCKED}{remedy}"):
        pack_call(fn, args, kwargs)


def test_a_global_of_a_function_that_is_sent_by_value_needs_an_import_and_no_getstate():
    namespace = {"__name__": "__main__", "LOCK": LOCK}
    exec("def locked():\n    with LOCK: return 1", namespace)  # noqa: S102
    with pytest.raises(Unsendable, match=r"global variable 'LOCK' of .* have workers import the function") as caught:
        pack_call(namespace["locked"], (), {})
    assert "__getstate__" not in str(caught.value)


def test_a_bare_lock_needs_no_way():
    with pytest.raises(Unsendable) as caught:
        pack_call(tasks.double, (LOCK,), {})
    assert str(caught.value) == (
        "argument 1 ('x'), of type _thread.lock, cannot be pickled: TypeError: cannot pickle '_thread.lock' object; "
        "make it in the worker, or use fresh_locks=True"
    )


def test_an_argument_that_is_nested_too_deeply_says_so():
    node = None
    for _ in range(50_000):
        node = Held([node])
    with pytest.raises(Unsendable, match=r"^argument 1 .* nested too deeply, along x.inner\[0\].inner\[0\]\.\.\. \("):
        pack_call(tasks.double, (node,), {})


def test_an_error_of_many_lines_becomes_one():
    with pytest.raises(Unsendable) as caught:
        pack_call(tasks.double, (pickles.CallsWhenPickled(tasks.raise_it, ValueError("a\n  b" * 1000)),), {})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1500


def test_what_was_wrong_is_told_though_the_search_for_it_fails(monkeypatch):
    monkeypatch.setattr(culprit, "find", lambda *_: tasks.raise_it(OSError(24, "Too many open files")))
    with pytest.raises(
        Unsendable, match=r"^argument 1 \('x'\), of type test_payload.Held, cannot be pickled: TypeError"
    ):
        pack_call(tasks.double, (Held(LOCK),), {})


class BadSignature:
    @property
    def __signature__(self):
        raise SystemExit(3)

    def __call__(self, x):
        return x


def test_a_signature_that_raises_costs_only_the_name():
    with pytest.raises(Unsendable, match=r"^argument 1, of type test_payload.Held, .*: \(argument 1\).inner "):
        pack_call(BadSignature(), (Held(LOCK),), {})


@pytest.mark.parametrize("error", [SystemExit(3), ValueError("no"), RecursionError("deep")])
def test_what_a_reduce_raises_does_not_leave_the_packing_of_a_call(error):
    with pytest.raises(Unsendable, match="argument 1"):
        pack_call(tasks.double, (pickles.CallsWhenPickled(tasks.raise_it, error),), {})


def test_a_ctrl_c_while_a_call_is_pickled_is_the_callers_own():
    with pytest.raises(KeyboardInterrupt):
        pack_call(tasks.double, (pickles.CallsWhenPickled(tasks.raise_it, KeyboardInterrupt()),), {})


def test_lambdas_closures_and_local_classes_travel_by_value():
    base = 5

    class Local:
        def __init__(self, x):
            self.x = x

    fn, args, kwargs = unpack_call(pack_call(lambda local: local.x + base, (Local(2),), {}))
    assert fn(*args, **kwargs) == 7


def test_what_lives_in_main_travels_by_value(monkeypatch):
    module = types.ModuleType("__main__")
    exec("def triple(x):\n    return 3 * x", module.__dict__)  # noqa: S102
    module.triple.__module__ = "__main__"
    monkeypatch.setitem(sys.modules, "__main__", module)
    packed = pack_call(module.triple, (2,), {})
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    fn, args, _ = unpack_call(packed)
    assert fn(*args) == 6


def test_a_module_that_cloudpickle_was_told_to_send_by_value_is_sent_by_value():
    cloudpickle.register_pickle_by_value(tasks)
    try:
        packed = pack_call(tasks.double, (2,), {})
    finally:
        cloudpickle.unregister_pickle_by_value(tasks)
    fn, args, _ = unpack_call(packed)
    assert fn is not tasks.double
    assert fn(*args) == 4


# -- values ----------------------------------------------------------------------------------------------------------


class Sub(int):
    pass


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "value",
    [None, True, 1, 1.5, 2j, "a", b"b", bytearray(b"c"), [1, "a"], (1, None), {1, 2}, frozenset("ab"), {"k": 1.5}],
    ids=stable,
)
def test_plain_values_need_no_proof(value):
    assert payload._is_plain(value)


@pytest.mark.parametrize(
    "value",
    [Sub(1), Text("a"), [Sub(1)], [[1]], {"k": []}, {Text("k"): 1}, [0] * 300, tasks.double, object, range(3)],
    ids=stable,
)
def test_what_could_run_code_when_it_is_unpickled_proves_itself(value):
    assert not payload._is_plain(value)


def test_of_numpys_values_those_prove_themselves_that_hold_objects():
    np = pytest.importorskip("numpy")
    for plain in (np.zeros(3), np.float64(2), np.array(["a"]), np.zeros(2, dtype=[("a", "i4")])):
        assert payload._is_plain(plain)
    for other in (np.array([object()]), np.array([1, None]), np.zeros(2, dtype=[("a", "O")]), np.dtype("i4"), np.sum):
        assert not payload._is_plain(other)


def test_an_exception_with_an_array_in_its_args_travels():
    np = pytest.importorskip("numpy")
    again = travelled(pickles.PlainError(np.arange(3)))
    assert type(again) is pickles.PlainError
    assert list(again.args[0]) == [0, 1, 2]


def test_a_plain_value_is_not_unpickled_for_proof(monkeypatch):
    monkeypatch.setattr(payload.pickle, "loads", lambda _data: pytest.fail("it was unpickled"))
    pack_value([1, 2, "three"])


def test_a_value_that_does_not_pickle_is_named_by_its_type():
    with pytest.raises(Unsendable, match=r"the result, of type _thread.lock, cannot be pickled: TypeError"):
        pack_value(LOCK)


def test_the_way_to_what_does_not_pickle_in_a_value_is_told():
    with pytest.raises(
        Unsendable, match=rf"^the result, of type builtins.list, .*: result\[0\].inner {LOCKED}; leave it out"
    ):
        pack_value([Held(LOCK)])


def test_a_value_that_does_not_unpickle_is_named_by_its_type():
    with pytest.raises(
        Unsendable, match=r"lane_pickles.Calls, pickles but cannot be unpickled: ValueError: it does not"
    ):
        pack_value(pickles.Calls(pickles.fail_to_load))


def test_an_exit_in_a_proof_is_not_swallowed():
    with pytest.raises(SystemExit):
        pack_value(pickles.Calls(tasks.call_sys_exit, 3))


# -- exceptions ------------------------------------------------------------------------------------------------------


def travelled(error):
    try:
        raise error
    except BaseException as caught:
        return unpack_exception(pack_exception(caught))


class Slotted(Exception):
    __slots__ = ("code",)

    def __init__(self, code):
        super().__init__(code)
        self.code = code


class WantsTwoError(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


class WithStateError(Exception):
    def __init__(self, message):
        super().__init__(message)
        self.details = {"a": [1, 2]}


ERRORS = [
    ValueError(),
    ValueError("a", 2),
    KeyError("k"),
    OSError(2, "No such file", "path"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    StopIteration(4),
    SystemExit(3),
    KeyboardInterrupt(),
    Slotted(5),
    WantsTwoError("x", "y"),
    WithStateError("m"),
    pickles.FrozenError(1, "one"),
    pickles.KeywordOnlyError(code=3),
    pickles.DecoratingError("n"),
    ExceptionGroup("both", [ValueError(1), TypeError(2)]),
    ValueError(float("nan")),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_exception_comes_out_with_its_type_args_text_and_state(error):
    again = travelled(error)
    assert type(again) is type(error)
    assert repr(again.args) == repr(error.args)
    assert str(again) == str(error)
    assert repr(vars(again)) == repr(vars(error))


def test_the_attributes_of_an_os_error_travel():
    again = travelled(FileNotFoundError(2, "No such file", "x"))
    assert (again.errno, again.strerror, again.filename) == (2, "No such file", "x")


def test_notes_travel():
    error = ValueError("a")
    error.add_note("seen near b")
    assert travelled(error).__notes__ == ["seen near b"]


def test_a_slot_that_its_class_sets_by_itself_travels():
    assert travelled(Slotted(5)).code == 5


def test_the_remote_traceback_is_the_cause_and_shows_a_cause_of_the_errors_own():
    try:
        try:
            {}["key"]
        except KeyError as cause:
            raise ValueError("no") from cause
    except ValueError as error:
        again = unpack_exception(pack_exception(error))
    text = str(again.__cause__)
    assert "KeyError: 'key'" in text
    assert "the direct cause" in text
    assert "test_the_remote_traceback_is_the_cause" in text


@pytest.mark.parametrize(
    "cls",
    [
        pickles.HoldsLockError,
        pickles.LoadsBadlyError,
        pickles.ExitsWhenPickledError,
        pickles.InterruptsWhenPickledError,
        pickles.UnprintableError,
    ],
)
def test_what_cannot_travel_as_a_whole_travels_in_parts_or_as_a_stand_in(cls):
    again = travelled(cls())
    assert type(again) in (cls, NotSendable)
    assert cls.__name__ in (type(again).__name__ if type(again) is cls else str(again))
    assert again.__cause__.text


def test_an_exception_with_a_lock_is_a_stand_in_with_its_name_text_and_traceback():
    again = travelled(pickles.HoldsLockError())
    assert type(again) is NotSendable
    assert "HoldsLockError" in str(again)
    assert "holds a lock" in str(again)
    assert "in travelled" in str(again.__cause__)


def test_a_stand_in_says_what_could_not_travel():
    assert "; it cannot be pickled: error.lock is a _thread.lock (" in str(travelled(pickles.HoldsLockError()))
    assert "cannot be pickled" not in str(travelled(pickles.LoadsBadlyError()))


def test_what_comes_back_pickles_again():
    for error in ERRORS:
        assert repr(travelled(travelled(error)).args) == repr(error.args)
    again = travelled(pickles.HoldsLockError())
    assert str(pickle.loads(pickle.dumps(again))) == str(again)
    assert pickle.loads(pickle.dumps(again.__cause__)).text == again.__cause__.text


@pytest.mark.parametrize("surrogate", ["", "\udcff"])
def test_an_exception_that_cannot_be_made_again_here_says_what_it_was(monkeypatch, surrogate):
    module = types.ModuleType("only_in_the_worker")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec("class Refused(Exception): pass\ndef refuse(text): raise Refused(text)", vars(module))  # noqa: S102
    try:
        module.refuse(f"no plan{surrogate}")
    except Exception as error:
        data = pack_exception(error)
    monkeypatch.delitem(sys.modules, module.__name__)
    again = unpack_exception(data)
    assert type(again) is NotSendable
    assert "the task raised only_in_the_worker.Refused, said: Refused: no plan" in str(again)
    assert "No module named 'only_in_the_worker'" in str(again)
    assert "in refuse" in str(again.__cause__)


def test_not_sendable_is_a_pickling_error():
    assert issubclass(NotSendable, pickle.PicklingError)


class ForkingPicklerKnows:
    def __init__(self, x):
        self.x = x

    def __reduce__(self):
        raise TypeError("not plainly")


def test_what_only_multiprocessings_pickler_knows_travels(monkeypatch):
    from multiprocessing.reduction import ForkingPickler

    monkeypatch.setattr(ForkingPickler, "_extra_reducers", ForkingPickler._extra_reducers.copy())
    ForkingPickler.register(ForkingPicklerKnows, lambda known: (ForkingPicklerKnows, (known.x,)))
    _, (known, local), _ = unpack_call(pack_call(print, (ForkingPicklerKnows(3), lambda: 4), {}))
    assert (known.x, local()) == (3, 4)
    assert unpack_call(pack_call(print, (ForkingPicklerKnows(3),), {}))[1][0].x == 3
    assert payload.unpack_value(pack_value([ForkingPicklerKnows(5)]))[0].x == 5


def test_torchs_reducers_are_left_out(monkeypatch):
    from multiprocessing.reduction import ForkingPickler

    def share(_):
        raise AssertionError("it would be in memory that is shared with the worker")

    share.__module__ = "torch.multiprocessing.reductions"
    monkeypatch.setattr(ForkingPickler, "_extra_reducers", ForkingPickler._extra_reducers.copy())
    ForkingPickler.register(Held, share)
    _, (held, _), _ = unpack_call(pack_call(print, (Held(3), lambda: 4), {}))
    assert held.inner == 3


@pytest.mark.parametrize("by_value", [False, True])
def test_the_end_of_a_pipe_is_refused_and_never_a_bare_number(by_value):
    import multiprocessing

    near, far = multiprocessing.Pipe()
    with near, far:
        also = (lambda: 1,) if by_value else ()
        with pytest.raises(Unsendable, match=r"argument 1 .*Connection.* the number of a descriptor of this process"):
            pack_call(print, (far, *also), {})
        with pytest.raises(Unsendable, match="the number of a descriptor of this process"):
            pack_value([far, *also])
        again = unpack_exception(pack_exception(ValueError(far)))
        assert type(again) is NotSendable


@pytest.mark.parametrize("fn", [abs, math.sqrt, time.sleep, pickle.dumps, payload.pack_call], ids=stable)
def test_a_function_of_a_module_goes_by_its_name(fn):
    head = payload.by_name(fn, None)
    assert payload.unpack_call(head) == (fn, (), {})
    assert payload.unpack_call(payload.pack_by_name(fn, head, (1, "a"))) == (fn, (1, "a"), {})


@pytest.mark.parametrize("fn", [[].append, "".join, int, functools.partial(abs), lambda: 0, str.upper], ids=stable)
def test_what_holds_something_or_has_no_name_does_not(fn):
    assert payload.by_name(fn, None) is None


def test_a_function_whose_name_another_has_is_called_by_what_was_pickled_first(monkeypatch):
    fn = payload.pack_arguments
    head = payload.by_name(fn, None)
    monkeypatch.setattr(payload, "pack_arguments", payload.by_name)
    data = payload.pack_by_name(fn, head, (1,))
    assert payload.unpack_call(data) == (payload.by_name, (1,), {}), "by the name, where it is unpickled"


@pytest.mark.parametrize(
    ("args", "kwargs", "may"),
    [
        ((1, 2.5, None, True, 1j), {}, True),
        (("x" * 4000, b"y"), {}, True),
        (("x" * 5000,), {}, False),
        (([1],), {}, False),
        ((1,), {"a": 1}, False),
        ((True, range(3)), {}, False),
        ((), {}, True),
    ],
)
def test_short_plain_arguments_may_go_with_others(args, kwargs, may):
    assert payload.may_go_with_others(args, kwargs) is may
