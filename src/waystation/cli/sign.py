"""``waystation sign …``: prints signed decisions, for Temporal's own command line.

Whoever has the key decides in any name, as the API does. The key is ``WAYSTATION_DECISION_KEYS``, or that of
the ``waystation dev`` in this folder.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer
from pydantic import BaseModel, TypeAdapter, ValidationError

from waystation.dev.local import DECISION_KEY, DEFAULT_STATE_FOLDER, SECRETS_FILE
from waystation.errors import StartError
from waystation.malformed import what_is_wrong
from waystation.models.base import JsonObject, replaced
from waystation.models.decisions import Approve, Reject
from waystation.models.events import Actor, Role
from waystation.models.mandates import MandateTerms
from waystation.models.purchases import RetryPayment
from waystation.models.questions import AnswerQuestion, AnswersAs
from waystation.terminal import say, say_json, say_model

if TYPE_CHECKING:
    from waystation.proofs import Signer

KEYS_VARIABLE: Final = "WAYSTATION_DECISION_KEYS"
MAX_MINUTES: Final = 7 * 24 * 60
_KEYS: Final = TypeAdapter(tuple[str, ...])
_ARGUMENTS: Final = TypeAdapter(JsonObject)

T = TypeVar("T")

sign_app = typer.Typer(no_args_is_help=True, help="Sign decisions for Temporal's own command line.")

WorkflowArgument = Annotated[str, typer.Argument(help="The id of the purchase or paid request.")]
By = Annotated[str, typer.Option(help="Who decides.")]
Minutes = Annotated[
    int, typer.Option(min=1, max=MAX_MINUTES, help="How long the signature may be used from now.")
]
State = Annotated[Path, typer.Option(help="The state folder of 'waystation dev'.", envvar="WAYSTATION_STATE")]


@sign_app.command("approve")
def sign_approve(
    workflow_id: WorkflowArgument,
    digest: Annotated[str, typer.Option(help="The digest of the cart or terms you have seen.")],
    by: By,
    minutes: Minutes = 10,
    state: State = DEFAULT_STATE_FOLDER,
) -> None:
    """Print the input of the signal 'approve'."""
    wanted = _checked(lambda: Approve(digest=digest, approver=by))
    proof = _signer(state).sign("approve", workflow_id, wanted, lasts_seconds=minutes * 60)
    _print(replaced(wanted, proof=proof))


@sign_app.command("reject")
def sign_reject(
    workflow_id: WorkflowArgument,
    by: By,
    digest: Annotated[str | None, typer.Option(help="The digest; without it, whatever is shown.")] = None,
    reason: Annotated[str, typer.Option(help="Why, for the trail.")] = "",
    minutes: Minutes = 10,
    state: State = DEFAULT_STATE_FOLDER,
) -> None:
    """Print the input of the signal 'reject'."""
    wanted = _checked(lambda: Reject(digest=digest, approver=by, reason=reason))
    proof = _signer(state).sign("reject", workflow_id, wanted, lasts_seconds=minutes * 60)
    _print(replaced(wanted, proof=proof))


@sign_app.command("retry")
def sign_retry(
    workflow_id: WorkflowArgument,
    by: By,
    payment_method: Annotated[
        str | None, typer.Option(help="Another saved payment method of the mandate.")
    ] = None,
    minutes: Minutes = 10,
    state: State = DEFAULT_STATE_FOLDER,
) -> None:
    """Print the input of the signal 'retry_payment'."""
    wanted = _checked(lambda: RetryPayment(by=by, payment_method=payment_method))
    proof = _signer(state).sign("retry", workflow_id, wanted, lasts_seconds=minutes * 60)
    _print(replaced(wanted, proof=proof))


@sign_app.command("answer")
def sign_answer(
    session_id: Annotated[str, typer.Argument(help="The session's id, which is its workflow id.")],
    question_id: Annotated[str, typer.Argument(help="The question's id.")],
    by: By,
    digest: Annotated[
        str | None, typer.Option(help="The digest of what you have seen; needed to approve.")
    ] = None,
    approve: Annotated[bool, typer.Option("--approve", help="Approve.")] = False,
    reject: Annotated[str | None, typer.Option(help="Reject, with this reason.")] = None,
    arguments: Annotated[
        str | None, typer.Option(help="Other arguments to approve, as JSON, where they are editable.")
    ] = None,
    answers_as: Annotated[AnswersAs, typer.Option("--as", help="As what.")] = "approver",
    minutes: Minutes = 10,
    state: State = DEFAULT_STATE_FOLDER,
) -> None:
    """Print the input of the signal 'answer', to decide whether a tool may run."""
    if approve == (reject is not None) or (reject is not None and arguments is not None):
        raise StartError("give one decision: --approve, perhaps with --arguments, or --reject REASON.")
    if approve and digest is None:
        raise StartError("give --digest: it says what you have seen.")
    value: JsonObject = {"decision": "approve" if approve else "reject"}
    if reject:
        value["reason"] = reject
    role = Role.OPERATOR if answers_as == "operator" else Role.USER

    def read() -> AnswerQuestion:
        if arguments is not None:
            value["arguments"] = _ARGUMENTS.validate_json(arguments)
        return AnswerQuestion(
            question_id=question_id,
            value=value,
            actor=Actor(id=by, role=role),
            answers_as=answers_as,
            digest=digest,
        )

    wanted = _checked(read, "the answer")
    proof = _signer(state).sign("answer", session_id, wanted, lasts_seconds=minutes * 60)
    _print(replaced(wanted, proof=proof))


@sign_app.command("grant")
def sign_grant(
    mandate_id: Annotated[str, typer.Argument(help="The mandate's id, which is its workflow id.")],
    terms: Annotated[Path, typer.Argument(help="A JSON file with the terms; '-' reads standard input.")],
    minutes: Minutes = 10,
    state: State = DEFAULT_STATE_FOLDER,
) -> None:
    """Print the input that starts a mandate."""
    granted = _checked(lambda: MandateTerms.model_validate_json(_read(terms)), "the terms")
    proof = _signer(state).sign("grant", mandate_id, granted, lasts_seconds=minutes * 60)
    start = {"terms": _plain(granted), "proof": _plain(proof)}
    say_json(json.dumps(start, separators=(",", ":")))


@sign_app.command("new-key")
def new_key(
    key_id: Annotated[str, typer.Option("--id", help="Names the key; a new one for each.")] = "k1",
) -> None:
    """Make a pair of keys and print both settings: the first for the API, the second for workers."""
    from waystation.proofs import Signer, new_signing_key

    key = _checked(lambda: new_signing_key(key_id))
    say(f"{KEYS_VARIABLE}='{json.dumps([key])}'")
    say(f"WAYSTATION_DECISION_PUBLIC_KEYS='{json.dumps([Signer.of(key).public_key])}'")


def _signer(state: Path) -> "Signer":
    # Here, because only this command needs a library for signatures.
    from waystation.proofs import signer_from

    signer = _checked(lambda: signer_from(_known_keys(state)))
    if signer is None:
        raise StartError(
            f"there is no key to sign with: set {KEYS_VARIABLE}, or run this in the folder of "
            "'waystation dev'."
        )
    return signer


def _known_keys(state: Path) -> tuple[str, ...]:
    given = os.environ.get(KEYS_VARIABLE)
    if given:
        return _KEYS.validate_json(given)
    try:
        return (str(json.loads((state / SECRETS_FILE).read_text())[DECISION_KEY]),)
    except (OSError, ValueError, KeyError):
        return ()


def _read(path: Path) -> str:
    try:
        return typer.get_text_stream("stdin").read() if str(path) == "-" else path.read_text()
    except OSError as error:
        raise StartError(f"can't read the terms: {error.strerror}: {path}") from error


def _checked(make: Callable[[], T], what: str = KEYS_VARIABLE) -> T:
    try:
        return make()
    except ValidationError as error:
        raise StartError(what_is_wrong(error, whole=what)[0]) from None


def _plain(model: BaseModel) -> object:
    return model.model_dump(mode="json", exclude_none=True)


def _print(model: BaseModel) -> None:
    say_model(model, indent=None)
