"""Words of ``--cfg-options``: what is in quotes is text, and a place that is not there is named."""

import pytest
from mmengine.config import Config

from projects.prune_plugin.common.errors import UserError
from projects.prune_plugin.common.option_values import check_place
from projects.prune_plugin.workflows import cli


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ("['(']", ['(']),
        ("['.*[(]']", ['.*[(]']),
        ("['(a|b)', '[x']", ['(a|b)', '[x']),
        ("('a, b', 'c')", ('a, b', 'c')),
        ('["it\'s (not)"]', ["it's (not)"]),
        ("'.*[(]'", '.*[(]'),
        ("'.*[(],x'", '.*[(],x'),
        ('[.*attn,.*mlp]', ['.*attn', '.*mlp']),
        ("['.*attn','.*mlp']", ['.*attn', '.*mlp']),
        ("[dict(type='A', at=['('])]", [dict(type='A', at=['('])]),
    ],
)
def test_brackets_and_commas_in_quotes_are_text(text, value):
    assert cli.parse_cfg_options([f'key={text}']) == {'key': value}


CFG = Config(dict(a=dict(b=[dict(type='X')], c=1, d=None, e=[])))


@pytest.mark.parametrize(
    ('key', 'said'),
    [
        ('a.b.5.type', '--cfg-options a.b.5.type: a.b is a list without an entry 5; its entries are 0'),
        ('a.b.type', 'a.b is a list without an entry type; its entries are 0 to 0'),
        ('a.e.0.x', 'a.e is a list without an entry 0; it is empty; to give more'),
        ('a.c.x', '--cfg-options a.c.x: a.c is 1, which has no key x; write it as a whole: "a.c='),
        ('a.d.x', '--cfg-options a.d.x: a.d is None, which has no key x'),
    ],
)  # fmt: skip
def test_a_place_that_is_not_there_is_named(key, said):
    with pytest.raises(UserError) as error:
        check_place(CFG, key)
    assert said in str(error.value)
    with pytest.raises(UserError) as error:
        cli.merge(CFG, {'a.c': 2, key: 1})
    assert said in str(error.value)


@pytest.mark.parametrize('key', ['a.new.x', 'a.b.0.type', 'a.c', 'other.x'])
def test_places_that_are_there_or_new(key):
    check_place(CFG, key)
    cli.merge(CFG.copy(), {key: 1})
