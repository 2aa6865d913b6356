"""The API that agents are written against. An agent runs in its own process, with its own Temporal worker.

agent = Agent("assistant")

@agent.turn
async def answer(turn: Turn) -> None:
    async for token in my_model(turn.conversation):
        await turn.write(token)

# waystation agent my_module:agent
"""

from waystation.agent.agent import Agent
from waystation.agent.message_writer import MessageWriter
from waystation.agent.questions import (
    AnswerNotUsable,
    Approval,
    ApprovalRejected,
    ApprovalTerms,
    QuestionExpired,
    QuestionWithdrawn,
)
from waystation.agent.retelling import TurnDiverged
from waystation.agent.runner import serve
from waystation.agent.step_records import StepRefused
from waystation.agent.step_results import StepResultError
from waystation.agent.steps import CurrentStep, current_step
from waystation.agent.suggestions import NoSuggestions, SuggestionRequest
from waystation.agent.turn import (
    RetryTurn,
    Steering,
    SubAgent,
    SubAgentFailed,
    ToolCall,
    Turn,
)
from waystation.models.questions import Audience, Choice

__all__ = [
    "Agent",
    "AnswerNotUsable",
    "Approval",
    "ApprovalRejected",
    "ApprovalTerms",
    "Audience",
    "Choice",
    "CurrentStep",
    "MessageWriter",
    "NoSuggestions",
    "QuestionExpired",
    "QuestionWithdrawn",
    "RetryTurn",
    "Steering",
    "StepRefused",
    "StepResultError",
    "SubAgent",
    "SubAgentFailed",
    "SuggestionRequest",
    "ToolCall",
    "Turn",
    "TurnDiverged",
    "current_step",
    "serve",
]
