"""The agent that the environment describes."""

import importlib

import pytest
from typer.testing import CliRunner

from waystation.agents import llm
from waystation.cli.main import app


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (llm.MODEL_VARIABLE, llm.NAME_VARIABLE, llm.INSTRUCTIONS_VARIABLE, "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    llm.__dict__.pop("agent", None)


def test_it_is_built_from_the_model_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(llm.MODEL_VARIABLE, "test")
    module = importlib.import_module("waystation.agents.llm")
    assert module.agent.name == "assistant"
    assert module.agent is module.agent


def test_its_name_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(llm.MODEL_VARIABLE, "test")
    monkeypatch.setenv(llm.NAME_VARIABLE, "concierge")
    assert llm.default_agent().name == "concierge"


def test_the_command_line_says_that_no_model_is_set() -> None:
    result = CliRunner().invoke(app, ["agent", "waystation.agents.llm:agent"])
    assert result.exit_code != 0
    assert "WAYSTATION_LLM_MODEL" in result.output


def test_a_model_that_does_not_exist_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(llm.MODEL_VARIABLE, "nobody:nothing")
    with pytest.raises(AttributeError, match="nobody:nothing"):
        llm.default_agent()


def test_other_names_are_not_found() -> None:
    with pytest.raises(AttributeError, match="no attribute"):
        _ = llm.agents
