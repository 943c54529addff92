"""An error is told in a line that says where in its author's code it arose."""

from __future__ import annotations

import types

import pytest
import torch

from nearfar.errors import InputError
from nearfar.nn.batch import check_embeddings
from nearfar.told import place, told


def raised(source, **names):
    """What a module of somebody's raises, by these lines."""
    module = types.ModuleType("acme_losses.parts")
    vars(module).update(names)
    with pytest.raises((Exception, SystemExit)) as caught:
        exec(compile(source, "/somewhere/acme_losses/parts.py", "exec"), vars(module))
    error = caught.value
    return error.with_traceback(error.__traceback__.tb_next)


def test_it_has_the_type_the_first_line_and_the_place():
    error = raised("def f():\n    raise KeyError('a')\nf()")
    assert told(error) == "KeyError: 'a' (line 2 of parts.py)"
    assert told(raised("raise ValueError('first\\nsecond')")) == "ValueError: first (line 1 of parts.py)"
    assert told(raised("raise RuntimeError")) == "RuntimeError (line 1 of parts.py)"
    assert told(raised("raise SystemExit(3)")) == "it called sys.exit(3) (line 1 of parts.py)"


def test_the_place_is_the_authors_even_where_torch_or_nearfar_raised():
    error = raised("\ntorch.nn.functional.one_hot(torch.ones(2))", torch=torch)
    assert told(error).endswith("(line 2 of parts.py)")
    error = raised("\n\ncheck(None, 'embeddings')", check=check_embeddings)
    assert isinstance(error, InputError)
    assert told(error).endswith("(line 3 of parts.py)")


def test_the_place_is_where_the_cause_arose_if_another_error_was_raised_of_it():
    def made(part):
        try:
            return part()
        except AttributeError as error:
            raise InputError("it could not be made") from error

    error = raised("\ndef part():\n    return (1).margin\nmade(part)", made=made)
    assert told(error).endswith("it could not be made (line 3 of parts.py)")


def test_where_no_author_is_in_sight_it_is_nearfars_unless_only_the_authors_will_do():
    with pytest.raises(InputError) as caught:
        check_embeddings(None, "embeddings")
    error = caught.value
    error = error.with_traceback(error.__traceback__.tb_next)
    assert told(error).endswith("of batch.py)")
    assert place(error, only_own=True) == ""
    assert told(error, only_own=True) == f"InputError: {error}"


def test_an_error_that_was_never_raised_has_no_place():
    assert told(ValueError("no")) == "ValueError: no"
