"""Laws of topic templates and escaping."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract.errors import ConfigurationError
from edge_agent.topics import OutputTopics, compile_template, escape_level, unescape_level


@pytest.mark.parametrize(
    ("template", "subscription", "topic", "parts"),
    [
        ("plant/{asset}", "plant/+", "plant/p1", ("p1", None)),
        ("plant/{asset}/{sensor}", "plant/+/+", "plant/p1/flow", ("p1", "flow")),
        ("plant/pump-{asset}/x", "plant/+/x", "plant/pump-7/x", ("7", None)),
        ("a/+/{sensor}/#", "a/+/+/#", "a/b/flow/c/d", (None, "flow")),
        ("a/{sensor}/#", "a/+/#", "a/flow", (None, "flow")),
        ("plant.1/{asset}", "plant.1/+", "plantx1/p", None),
        ("plant/{asset}", "plant/+", "plant/p1/flow", None),
        ("plant/pump-{asset}", "plant/+", "plant/valve-1", None),
    ],
)
def test_template_reads_its_topics(
    template: str, subscription: str, topic: str, parts: tuple[str | None, str | None] | None
) -> None:
    """A template subscribes to a filter and reads asset and sensor from exactly its own topics."""
    compiled = compile_template(template)
    assert compiled.subscription == subscription
    assert compiled.match(topic) == parts


@pytest.mark.parametrize(
    "bad", ["", "a/{plant}", "a/{asset}/{asset}", "a/#/b", "a/b#", "a/x+", "a/{asset", "a/b}"]
)
def test_bad_template_is_refused(bad: str) -> None:
    """A template that MQTT or the agent could not honour is a configuration error that names it."""
    with pytest.raises(ConfigurationError, match="topic template"):
        compile_template(bad)


@given(st.text(), st.text())
def test_escaping_is_one_to_one(first: str, second: str) -> None:
    """An escaped name is one safe level, comes back unchanged, and never meets another name's."""
    level = escape_level(first)
    assert not set(level) & set("/+#\0")
    assert unescape_level(level) == first
    assert (level == escape_level(second)) == (first == second)


def test_output_topics_escape_the_asset() -> None:
    """Event and alarm of an asset stand under base and node, with the asset as one level."""
    topics = OutputTopics("forewarn", "gate")
    assert topics.status == "forewarn/gate/status"
    assert topics.event("hall/1") == "forewarn/gate/event/hall%2F1"
    assert topics.alarm("a+b#") == "forewarn/gate/alarm/a%2Bb%23"
