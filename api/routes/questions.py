"""Routes of questions that agents ask people."""

from typing import Annotated

from fastapi import APIRouter, Path

from api.auth import Action
from api.dependencies import Caller, Parts, SessionPath
from api.door import DoorRoute
from api.errors import PROBLEM_RESPONSES, UnknownQuestion
from waystation.models.questions import Answered, AnswerRequest, QuestionView

router = APIRouter(route_class=DoorRoute, responses=PROBLEM_RESPONSES)

# An id may have slashes in it, which are slashes again once the path is decoded.
QuestionPath = Annotated[str, Path(max_length=128, description="The question's id, from `input.requested`.")]


@router.get(
    "/sessions/{session_id}/questions/{question_id:path}", tags=["questions"], summary="Look at a question"
)
async def question(
    session_id: SessionPath, question_id: QuestionPath, caller: Caller, parts: Parts
) -> QuestionView:
    """Returns all that was asked, and what has become of it."""
    caller.require(Action.READ, session_id)
    view = await parts.gateway.question(session_id, question_id)
    if view is None:
        raise UnknownQuestion(f"There is no question '{question_id}' here.")
    return view


@router.post(
    "/sessions/{session_id}/questions/{question_id:path}/answer",
    tags=["questions"],
    summary="Answer a question",
)
async def answer(
    session_id: SessionPath, question_id: QuestionPath, body: AnswerRequest, caller: Caller, parts: Parts
) -> Answered:
    """Answers a question: the first valid answer counts; 409 tells a later one what counts (``settled``)."""
    return await parts.control.answer(session_id, question_id, body, caller)
