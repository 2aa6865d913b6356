"""Activities of a paid request: ask for the price, mint one credential, send it, find out the truth.

Each is safe to run again: minting is deterministic (same key, same token or
signature), sending repeats the same credential, closing only reads and revokes.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import stripe
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import contract, failures
from activities.contract import (
    CREDENTIAL_NOT_MINTED,
    REQUEST_INVALID,
    AllowanceCall,
    CloseCall,
    PaidRequestCalls,
    ReadOffers,
    RedeemCall,
)
from activities.secrets import check_open, opened_credential, sealed_credential
from waystation.buyer.allowance.payments import PaymentLimits, PaymentSteps, mint_call
from waystation.buyer.credentials import Credentials, NotMintedError
from waystation.buyer.http import PaidHttp, ServerUnavailableError, now
from waystation.buyer.origins import RequestInvalidError, check_transport
from waystation.buyer.tokens import ProcessorUnavailableError
from waystation.models.payments import (
    AllowanceAnswer,
    ClosedCredential,
    MintCall,
    PaidHttpRequest,
    ProbeAnswer,
    RedeemAnswer,
    SealedCredential,
)
from waystation.temporal.sealing import Vault

HEARTBEAT_SECONDS: Final = 1.0

SERVER_UNAVAILABLE: Final = contract.SELLER_UNAVAILABLE
"""Retryable: no answer, a 5xx, or told to come back later."""


Method = TypeVar("Method", bound=Callable[..., Awaitable[object]])


def _acting(method: Method) -> Method:
    """Makes an activity heartbeat, so that a killed worker is missed in seconds, and names its failures."""

    @functools.wraps(method)
    async def act(*args: object, **kwargs: object) -> object:
        async def beat() -> None:
            while True:
                await asyncio.sleep(HEARTBEAT_SECONDS)  # most calls are over before the first beat
                activity.heartbeat()

        beating = None if activity.info().is_local else asyncio.create_task(beat())
        try:
            return await method(*args, **kwargs)
        except RequestInvalidError as error:
            raise _final(REQUEST_INVALID, error) from None
        except NotMintedError as error:
            raise _final(CREDENTIAL_NOT_MINTED, error) from None
        except ServerUnavailableError as error:
            raise ApplicationError(
                str(error), error.code, type=SERVER_UNAVAILABLE, next_retry_delay=error.wait
            ) from None
        except ProcessorUnavailableError as error:
            raise ApplicationError(str(error), type=contract.PROCESSOR_UNAVAILABLE) from None
        except stripe.StripeError as error:
            raise failures.processor_error(error, "act on the payment token") from None
        finally:
            if beating is not None:
                beating.cancel()

    # A decorator that takes a method and returns one of the same type: checkers differ on what else it is.
    return act  # type: ignore[return-value]


def _final(kind: str, error: RequestInvalidError | NotMintedError) -> ApplicationError:
    return ApplicationError(str(error), error.rule, type=kind, non_retryable=True)


class PaidRequestActivities(PaidRequestCalls):
    """Talks to paid servers, the processor and the wallet."""

    def __init__(self, http: PaidHttp, credentials: Credentials, vault: Vault) -> None:
        self._http = http
        self._credentials = credentials
        self._vault = vault

    @activity.defn
    @_acting
    async def probe_paid_resource(self, request: PaidHttpRequest) -> ProbeAnswer:
        """Makes the request without paying.

        Raises:
            ApplicationError: ``PaidRequestInvalid`` (final) or ``SellerUnavailable``.
        """
        asked = await self._http.ask(request, _owner())
        if asked.answer is not None:
            return ProbeAnswer(request=asked.request, answer=asked.answer)
        return self._credentials.read_offers(asked.request, asked.challenges, at=now())

    @activity.defn
    @_acting
    async def read_payment_offers(self, call: ReadOffers) -> ProbeAnswer:
        """Reads the offers of an earlier 402 answer."""
        check_transport(call.request.url)
        return self._credentials.read_offers(call.request, call.headers, at=now())

    @activity.defn
    @_acting
    async def mint_payment_credential(self, call: MintCall) -> SealedCredential:
        """Issues a token or signs an authorization for exactly this offer. Sends nothing to the server.

        Raises:
            ApplicationError: ``CredentialNotMinted`` (final), or the processor's failure.
        """
        check_open(self._vault)
        return sealed_credential(self._vault, await self._credentials.mint(call))

    @activity.defn
    @_acting
    async def redeem_payment_credential(self, call: RedeemCall) -> RedeemAnswer:
        """Sends the request with the credential; after a lost answer, the same credential again.

        Raises:
            ApplicationError: ``SellerUnavailable`` (retryable): nobody knows whether money moved.
        """
        credential = opened_credential(self._vault, call.credential)
        return await self._http.send(call.request, call.offer, credential, key=call.key, owner=_owner())

    @activity.defn
    @_acting
    async def close_payment_credential(self, call: CloseCall) -> ClosedCredential:
        """Asks the processor or the chain what became of a credential, and revokes an unused token.

        Raises:
            ApplicationError: ``ProcessorUnavailable`` (retryable).
        """
        credential = opened_credential(self._vault, call.credential)
        return await self._credentials.close(call.offer, credential, key=call.key)

    # Within an allowance

    @activity.defn
    @_acting
    async def pay_within_allowance(self, call: AllowanceCall) -> AllowanceAnswer:
        """Chooses, mints, sends and closes in one call.

        Safe to run again: key and time fix the credential, so a second run sends the same one.

        Raises:
            ApplicationError: The server or the processor is in trouble; retryable.
        """
        steps = self._steps()
        chosen = _choose(steps, call)
        if isinstance(chosen, AllowanceAnswer):
            return chosen
        credential = await steps.mint(chosen)
        redeemed = await steps.send(call.payment.request, chosen, credential)
        return await steps.close(chosen, credential, redeemed)

    @activity.defn
    @_acting
    async def close_within_allowance(self, call: AllowanceCall) -> AllowanceAnswer:
        """Finds out whether a payment without an answer moved money, and makes sure it never will."""
        steps = self._steps()
        chosen = _choose(steps, call)
        if isinstance(chosen, AllowanceAnswer):
            return chosen
        return await steps.close(chosen, await steps.mint(chosen), None)

    def _steps(self) -> PaymentSteps:
        return PaymentSteps(self._http, self._credentials, owner=_owner())


def _choose(steps: PaymentSteps, call: AllowanceCall) -> MintCall | AllowanceAnswer:
    payment = call.payment
    check_transport(payment.request.url)
    limits = PaymentLimits(call.max_price, call.rails, call.expected_payee)
    # Use the time of the call, not the clock: a retry must take the same offer.
    offer = steps.choose(payment.request, payment.first_answer, limits, at=call.at)
    if isinstance(offer, AllowanceAnswer):
        return offer
    return mint_call(
        offer,
        payment_id=call.payment_id,
        at=call.at,
        expires_at=call.expires_at,
        payment_method=call.payment_method,
    )


def _owner() -> str:
    """Returns the workflow that a large answer is stored for."""
    workflow_id = activity.info().workflow_id
    assert workflow_id is not None, "payments are made by workflows"
    return workflow_id
