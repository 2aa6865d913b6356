"""A turn of an agent, and what it can do.

A turn survives everything but the death of its own process: then another process starts the turn again, and
what the first left unfinished is superseded.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, TypeVarTuple, overload

from pydantic import JsonValue, TypeAdapter

from waystation.agent.history import Said
from waystation.agent.message_writer import MessageWriter
from waystation.agent.money import Purse
from waystation.agent.questions import RAISE, Approval, ApprovalTerms, Questions
from waystation.agent.retelling import Retelling, TurnDiverged
from waystation.agent.steps import Steps, place_of_counting, refuse_within_a_step
from waystation.agent.told import Told
from waystation.agent.tool_calls import ShownStep, ToolCalls
from waystation.agent.waits import Waits
from waystation.agent.writer import Control, Writer
from waystation.buyer.payer import Paid
from waystation.buyer.products import FoundProduct
from waystation.client import Session
from waystation.client.transcript import Message
from waystation.errors import WaystationError
from waystation.models.base import JsonObject
from waystation.models.events import DATA_PREFIX, Actor, EventType, Visibility
from waystation.models.ingest import AnsweredFrame, FinishedFrame, SteerFrame
from waystation.models.money import Money
from waystation.models.purchases import PurchaseView
from waystation.models.questions import Audience, Choice
from waystation.models.sessions import Spawn, TurnInput
from waystation.models.usage import UsageReported
from waystation.surrogates import mend

Arguments = TypeVarTuple("Arguments")

MAX_KEYED_AGENT_CHARACTERS = 90
"""Of an agent's name, in a spawn's own key: what is counted and hashed comes after it."""


T = TypeVar("T")


class RetryTurn(Exception):
    """Raise this in a turn to have the turn tried again (up to the session's limit)."""


class SubAgentFailed(WaystationError):
    """A sub-agent didn't complete: it failed or was stopped."""


@dataclass(frozen=True)
class Steering:
    """A message that arrived while the turn was running, and that the turn has taken up."""

    id: str
    text: str
    actor: Actor


class SubAgent:
    """A sub-agent at work in the same session."""

    def __init__(
        self, turn_id: str, finished: "asyncio.Future[FinishedFrame]", waits: Waits, retelling: Retelling
    ) -> None:
        self.turn_id = turn_id
        self._finished, self._waits, self._retelling = finished, waits, retelling

    async def result(self, *, park: bool = False) -> JsonValue:
        """Waits for its end and returns its result.

        With ``park``, this turn may be parked meanwhile, as with ``Turn.ask``: a sub-agent may wait for
        people, for days.

        Raises:
            SubAgentFailed: The sub-agent failed or was stopped.

        >>> answer = await sub_agent.result()  # doctest: +SKIP
        """
        self._retelling.reached(self.turn_id)
        if park:
            frame = await self._waits.wait(self.turn_id, self._finished)
        else:
            with self._waits.doing():
                frame = await asyncio.shield(self._finished)
        if frame.outcome != "completed":
            raise SubAgentFailed(
                f"{self.turn_id} ended as {frame.outcome}: {frame.detail or 'no reason given'}"
            )
        return frame.result


@dataclass
class ToolCall:
    """A tool at work; set ``result`` before the block ends."""

    id: str
    name: str
    arguments: JsonValue = None
    """Those that it runs with: as they were approved, where whoever approved has changed them."""
    result: JsonValue = None


class Turn:
    """One turn of an agent: what was said so far, and everything the agent can do."""

    def __init__(
        self,
        given: TurnInput,
        session: Session,
        writer: Writer,
        history: Sequence[Said],
        purse: Purse,
        waits: Waits,
        steps: Steps,
        told: Told,
    ) -> None:
        self.id = given.turn_id
        self.session_id = given.session_id
        self.attempt = given.attempt
        self.agent = given.agent
        self.text = given.text
        self.message_id = given.message_id
        self.data = given.data
        self.parent_turn_id = given.parent_turn_id
        self.waited_for = given.waited_for
        """Questions and sub-agents' turns for which it was parked; empty unless it goes on after that."""
        self.history = list(history)
        """Messages and tool calls, the request after what came before it; see ``history_of``."""
        self.conversation = [said for said in history if isinstance(said, Message)]
        """The messages of ``history``; after the request come only those that this turn has completed."""
        self.session = session
        self._writer = writer
        self._purse, self._waits = purse, waits
        self._retelling = Retelling(told, given.waited_for)
        self._questions = Questions(given.turn_id, writer, waits, self._retelling, told.asked)
        self._steps, self._told = steps, told
        self._calls = ToolCalls(writer, self.end_message, self._retelling)
        self._open: MessageWriter | None = None
        self._cut_off: list[MessageWriter] = []
        """Messages whose block or completion was cut off. If the turn ends by it, the session ends them, and
        knows how. If it goes on (after a timeout, say), they are completed before anything is written."""
        self._count = 0
        self._spawned: Counter[str] = Counter()
        self._steers: list[SteerFrame] = []
        self._steers_seen: set[str] = set()
        self._steered = asyncio.Event()
        self._finished: dict[str, asyncio.Future[FinishedFrame]] = {}

    @property
    def written(self) -> list[Message]:
        """Messages that an earlier attempt of this turn completed; they stand.

        If they are written again, they aren't shown twice; but a turn that looks here is taken to leave them
        out itself, and everything that it then writes is shown.
        """
        self._retelling.leave_messages()
        return [m for m in self.conversation if m.turn_id == self.id and m.actor.id == self.agent]

    def returns(self) -> None:
        """The turn's function has returned; called by the runner.

        Raises:
            TurnDiverged: It went on after a park, and hasn't come back to where it waited.
        """
        self._retelling.returns()

    @property
    def diverged(self) -> TurnDiverged | None:
        """Why the turn fails, whatever its function has made of it; for the runner."""
        return self._retelling.diverged

    # Writing

    async def write(self, text: str) -> None:
        """Appends text to the answer, starting a message if none is open.

        >>> await turn.write("Hello")  # doctest: +SKIP
        """
        if self._open is None:
            # Known before anything is waited for: what writes at the same time continues the same message.
            self._open = message = self._new_message()
            self._waits.begin(message)
            await self._start(message, {})
        await self._open.write(text)

    async def end_message(self) -> None:
        """Completes the message that ``write`` began, and those whose block was left by an exception.

        The next ``write`` begins another.

        Raises:
            WriteRefused: Something written earlier was refused; the messages are complete all the same.

        >>> await turn.end_message()  # doctest: +SKIP
        """
        if self._open is not None:
            message, self._open = self._open, None
            self._waits.end(message)
            await self._complete(message)
        self._complete_cut_off()

    @asynccontextmanager
    async def message(self, *, kind: str | None = None, **data: JsonValue) -> AsyncIterator[MessageWriter]:
        """Opens a separate message, completed when the block ends; ``kind`` may be ``reasoning``.

        >>> async with turn.message(kind="reasoning") as thoughts:  # doctest: +SKIP
        ...     await thoughts.write("Let me see.")
        """
        await self.end_message()
        message = self._new_message()
        with self._waits.doing():
            await self._start(message, {**({"kind": kind} if kind else {}), **data})
            try:
                yield message
            except BaseException:
                self._cut_off.append(message)
                raise
            await self._complete(message)

    async def emit(
        self, name: str, data: dict[str, JsonValue], *, visibility: Visibility | None = None
    ) -> None:
        """Writes an event of your own, ``data.<name>``; with ``visibility="staff"`` only staff see it.

        >>> await turn.emit("progress", {"percent": 40})  # doctest: +SKIP
        """
        if not self._retelling.event(DATA_PREFIX + name, data):
            await self._writer.write(DATA_PREFIX + name, data, visibility=visibility)

    async def report_usage(
        self,
        *,
        requests: int = 0,
        input_tokens: int = 0,
        cached_input_tokens: int = 0,
        output_tokens: int = 0,
        cost_micros: Mapping[str, int] | None = None,
        model: str | None = None,
    ) -> None:
        """Adds what was used since the last report to the sums of the turn and the session.

        Staff alone see it. Report inside the step that has used it, so that a turn that is tried again counts
        what was done twice, and only that.

        Args:
            requests: Requests to models.
            input_tokens: All tokens of the input.
            cached_input_tokens: Those of them that were read from the provider's cache.
            output_tokens: Tokens of the output.
            cost_micros: By currency, in millionths of its main unit: ``{"USD": 1500}`` is 0.15 cents.
            model: Which model, for whoever reads the log.

        Raises:
            ValueError: A number is negative or no whole number, or a currency isn't three capital letters.

        >>> await turn.report_usage(requests=1, input_tokens=900, output_tokens=40)  # doctest: +SKIP
        """
        report = UsageReported(
            requests=requests,
            input_tokens=input_tokens,
            cached_input_tokens=cached_input_tokens,
            output_tokens=output_tokens,
            cost_micros=cost_micros or {},
            model=model,
        )
        data = report.model_dump(mode="json", exclude_defaults=True)
        await self._writer.write(EventType.USAGE_REPORTED, data)

    async def flush(self) -> None:
        """Waits until everything written so far is durable.

        Raises:
            ConflictError: The turn is over.

        >>> await turn.flush()  # doctest: +SKIP
        """
        await self._writer.flush()

    async def _complete(self, message: MessageWriter) -> None:
        try:
            await message.complete()
        except BaseException:
            self._cut_off.append(message)
            raise

    def _complete_cut_off(self) -> None:
        while self._cut_off:
            self._cut_off.pop(0).cut_off()

    def _new_message(self) -> MessageWriter:
        self._count += 1
        return MessageWriter(self._writer, f"{self.id}-{self.attempt}-{self._count}", self._retelling)

    async def _start(self, message: MessageWriter, data: dict[str, JsonValue]) -> None:
        self._complete_cut_off()
        await message.start(data)

    # Steps

    @overload
    async def step(
        self,
        key: str,
        function: Callable[[*Arguments], Awaitable[object]] | Callable[[*Arguments], object],
        *arguments: *Arguments,
        show: str | None = None,
        returns: type[T],
    ) -> T: ...

    @overload
    async def step(
        self,
        key: str,
        function: Callable[[*Arguments], Awaitable[T]],
        *arguments: *Arguments,
        show: str | None = None,
    ) -> T: ...

    @overload
    async def step(
        self,
        key: str,
        function: Callable[[*Arguments], T],
        *arguments: *Arguments,
        show: str | None = None,
    ) -> T: ...

    async def step(
        self,
        key: str,
        function: Callable[..., object],
        *arguments: object,
        show: str | None = None,
        returns: Any = None,
    ) -> Any:
        """Runs a function once: its result is durable before the next line, and a later attempt gets it back.

        The result is JSON, a dataclass or a pydantic model, and goes through JSON also the first time: it is
        parsed as the function's return annotation or as ``returns``, else it stays JSON. Nobody in the
        session sees it. ``key`` names the step within the turn; what makes two steps differ belongs into it.
        What the function raises isn't recorded. A function without ``async`` runs in a thread. A step whose
        attempt ends before its result is recorded runs again: ``current_step().idempotency_key`` is for what
        it does outside. ``show`` shows it in the session under this title, without its result.

        Raises:
            StepRefused: The step is one too many (1,000), its result too large, its key another step's, or it
                is within a step.
            StepResultError: The result is no JSON, or what was recorded doesn't fit the type.

        >>> receipt = await turn.step("charge", charge, amount, show="Charging the card")  # doctest: +SKIP
        """
        shows = None if show is None else ShownStep(self._calls, self._call_id_of(key), show, self._told)
        return await self._steps.run(key, function, arguments, shows=shows, returns=returns)

    def recall(self, key: str) -> JsonValue | None:
        """Returns what a step has recorded under this key, or nothing; for adapters of agent frameworks.

        >>> await turn.step("plan", make_plan) == turn.recall("plan")  # doctest: +SKIP
        True
        """
        return self._steps.recall(key)

    def _call_id_of(self, key: str) -> str:
        """Returns a step's call id: the same in every attempt, so that its end can be shown by another."""
        return f"{self.id}-step-{hashlib.sha256(key.encode()).hexdigest()[:16]}"

    # Tools and sub-agents

    @asynccontextmanager
    async def tool(
        self,
        name: str,
        arguments: JsonValue = None,
        *,
        kind: str | None = None,
        approval: bool | ApprovalTerms = False,
        visibility: Visibility | None = None,
    ) -> AsyncIterator[ToolCall]:
        """Shows a tool call and what came of it; ``kind`` is ``native`` for one that the provider runs.

        With ``visibility="staff"`` only staff see both.

        With ``approval`` it is asked for first, and nothing is shown of a call that isn't approved; the
        arguments, then an object, are ``call.arguments`` as they were approved.

        Raises:
            ApprovalRejected: A person, or a rule of the session, has said no.
            ValueError: The arguments or the result can't be shown.
            WriteRefused: 200 calls of this turn are open already (``too-many-tools``), or something written
                earlier was refused.

        >>> async with turn.tool("search", {"q": "waystation"}) as call:  # doctest: +SKIP
        ...     call.result = await search("waystation")
        """
        if approval:
            self._calls.check_room()
            terms = approval if isinstance(approval, ApprovalTerms) else ApprovalTerms()
            arguments = (await self._approve(name, arguments, terms)).arguments
        async with self.show_tool(name, arguments, kind=kind, visibility=visibility) as call:
            with self.inside(call):
                yield call

    @asynccontextmanager
    async def show_tool(
        self,
        name: str,
        arguments: JsonValue = None,
        *,
        kind: str | None = None,
        visibility: Visibility | None = None,
    ) -> AsyncIterator[ToolCall]:
        """As ``tool``, for a call whose code runs in tasks of a framework's: they say so by ``inside``.

        >>> async with turn.show_tool("search", {"q": "waystation"}) as call:  # doctest: +SKIP
        ...     call.result = await framework.run(search, around=turn.inside(call))
        """
        self._count += 1
        call = ToolCall(id=f"{self.id}-{self.attempt}-{self._count}", name=name, arguments=arguments)
        shown = await self._calls.tell(call.id, name, arguments, kind, visibility)
        call.id = str(shown.shown["call_id"])  # of an earlier attempt, if that has left it open
        self._waits.begin_call(call.id)
        try:
            yield call
            await shown.end(result=call.result)
        except BaseException as error:
            shown.fail(error)
            raise
        finally:
            shown.close()
            self._waits.end_call(call.id)
        self._writer.raise_refused()

    @contextmanager
    def inside(self, call: ToolCall | None, *, key: str | None = None) -> Iterator[None]:
        """Says that the block's code is that of a call: while it waits for people, the turn may be parked.

        ``key`` is the step as which the caller records what comes of it. ``current_step`` is that step, and
        what is known by its place in the turn (``spawn``, ``buy``, ``allowance``, ``ask`` without a key) is
        known by its place in the call: a later attempt, which remembers the call, doesn't count it again.

        >>> with turn.inside(call, key="search-1"):  # doctest: +SKIP
        ...     found = await run(call.name)
        """
        with ExitStack() as block:
            if call:
                block.enter_context(self._waits.within_call(call.id))
            if key:
                block.enter_context(self._steps.around(key))
            yield

    async def spawn(self, agent: str, text: str, *, key: str | None = None) -> SubAgent:
        """Starts a sub-agent that writes to this session itself, after what the turn has written so far.

        ``key`` makes it idempotent: a turn that is tried again gets the first attempt's sub-agent, with its
        result. By default it is the agent, the text, and which of several equal spawns this is.

        >>> researcher = await turn.spawn("researcher", "Find the price.")  # doctest: +SKIP
        """
        if key is None:
            refuse_within_a_step("turn.spawn without a key")
        text = mend(text)
        spawn = Spawn(
            parent_turn_id=self.id,
            attempt=self.attempt,
            key=self._key_of(agent, text) if key is None else key,
            agent=agent,
            text=text,
        )
        await self.end_message()  # what was said before stands before the sub-agent, also when read later
        self._retelling.spawns(spawn.key)
        with self._waits.doing():
            turn_id = await self._writer.spawn(spawn)
        return SubAgent(turn_id, self._finish_of(turn_id), self._waits, self._retelling)

    def _key_of(self, agent: str, text: str) -> str:
        said = place_of_counting() + text
        same = f"{agent[:MAX_KEYED_AGENT_CHARACTERS]}-{hashlib.sha256(said.encode()).hexdigest()[:16]}"
        self._spawned[same] += 1
        count = self._spawned[same]
        return same if count == 1 else f"{same}-{count}"

    def _finish_of(self, turn_id: str) -> "asyncio.Future[FinishedFrame]":
        if turn_id not in self._finished:
            self._finished[turn_id] = asyncio.get_running_loop().create_future()
        return self._finished[turn_id]

    # Questions

    async def ask(
        self,
        prompt: str,
        *,
        answer: "type[T] | TypeAdapter[T]" = str,  # type: ignore[assignment]
        choices: Sequence[str | Choice] = (),
        audience: Audience | None = None,
        expires_in: timedelta | None = None,
        on_expiry: object = RAISE,
        key: str | None = None,
    ) -> T:
        """Asks the people of the session, and returns the first valid answer, however long that takes.

        ``answer`` is the type of the answer: text by default, a number, ``bool``, or a model, for which
        people fill in a form; ``choices`` offers texts instead. ``audience`` says who may answer, by default
        users and operators. After ``expires_in`` the answer is ``on_expiry``; an exception is raised.

        A turn that does nothing but wait is parked after a minute: its function is cancelled, and called
        again from the top when there is an answer, in this process or another. It then finds the answer
        here; so ask the same again, or give the question a ``key``.

        Raises:
            QuestionExpired: Nobody has answered in time, and there is no ``on_expiry``.
            AnswerNotUsable: A validator of the type's own refuses the answer.
            ValueError: This can't be asked.

        >>> size = await turn.ask("Which size?", choices=["small", "large"])  # doctest: +SKIP
        """
        refuse_within_a_step("turn.ask")
        await self.end_message()
        return await self._questions.ask(
            prompt,
            answer=answer,
            choices=choices,
            audience=audience,
            expires_in=expires_in,
            on_expiry=on_expiry,
            key=key,
        )

    async def approve(
        self,
        tool: str,
        arguments: dict[str, JsonValue],
        *,
        prompt: str | None = None,
        editable: bool = False,
        schema: JsonObject | None = None,
        audience: Audience | None = None,
        expires_in: timedelta | None = None,
        key: str | None = None,
    ) -> Approval:
        """Asks whether a tool may run with exactly these arguments, and returns those with which it may.

        Rules that the session was started with decide first. With ``editable``, whoever approves may change
        the arguments, within ``schema`` (JSON Schema) if there is one. Waits as ``ask`` does.

        Raises:
            ApprovalRejected: A person, or a rule of the session, has said no.
            QuestionExpired: Nobody has decided in time.

        >>> await turn.approve("delete_file", {"path": "notes.txt"})  # doctest: +SKIP
        """
        terms = ApprovalTerms(
            prompt=prompt, schema=schema, editable=editable, audience=audience, expires_in=expires_in, key=key
        )
        return await self._approve(tool, arguments, terms)

    async def _approve(self, tool: str, arguments: JsonValue, terms: ApprovalTerms) -> Approval:
        if not isinstance(arguments, dict):
            raise TypeError("What is to be approved has its arguments as an object: names and values.")
        refuse_within_a_step("turn.approve")
        await self.end_message()
        return await self._questions.approve(tool, arguments, terms)

    # Money

    async def search_products(
        self, seller: str, query: str = "", *, feed: str = "catalog", limit: int = 20
    ) -> tuple[FoundProduct, ...]:
        """Returns products from a seller's feed that match every word of the query.

        >>> found = await turn.search_products("https://shop.example", "red mug")  # doctest: +SKIP
        """
        return await self._purse.search_products(seller, query, feed=feed, limit=limit)

    async def buy(
        self,
        seller: str,
        items: Mapping[str, int],
        *,
        mandate_id: str,
        currency: str = "usd",
        key: str | None = None,
        **details: Any,
    ) -> PurchaseView:
        """Buys ``{item id: quantity}`` and waits for the end: completed, rejected, refused, …

        There is no parameter for a price: the seller's checkout states it, the mandate bounds it and a
        person approves the cart. ``key`` names the purchase within the turn; by default it is the turn's
        first, second, … purchase, whatever it is for. ``details`` are further fields of
        ``PurchaseRequest``. If the turn is stopped, a purchase that nobody has approved is canceled; an
        approved one continues, and the session says how it ended.

        Raises:
            ConflictError: An earlier attempt of the turn bought something else in this place, as can happen
                if several purchases run at the same time; give each a ``key``.

        >>> view = await turn.buy("https://shop.example", {"mug": 2}, mandate_id="m-1")  # doctest: +SKIP
        """
        if key is None:
            refuse_within_a_step("turn.buy without a key")
        with self._waits.doing():
            return await self._purse.buy(
                seller, items, mandate_id=mandate_id, currency=currency, key=key, **details
            )

    async def fetch(
        self,
        url: str,
        *,
        max_price: Money,
        mandate_id: str,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        key: str | None = None,
    ) -> Paid:
        """Makes a request, and pays for it if it must be paid for (HTTP 402), up to ``max_price``.

        The same call in the same turn is paid once, and a repeat returns the same answer; pass a ``key`` to
        pay for it again. With another ``max_price``, other headers or another mandate it is a payment of its
        own, so a request that was too dear can be made again with a higher limit. A turn that is tried again
        finds its payments if it makes them in the same order, or by their keys; one that comes back on other
        terms is refused (``id_taken``) rather than paid a second time. Each allowance counts for itself.

        Raises:
            PaymentRefusedError: The request got no answer; names the rule and says whether money moved.

        >>> paid = await turn.fetch(url, max_price=Money(amount=50, currency="usd"), mandate_id="m-1")
        ... # doctest: +SKIP
        """
        if key is None:
            refuse_within_a_step("turn.fetch without a key")
        with self._waits.doing():
            return await self._purse.fetch(
                url,
                max_price=max_price,
                mandate_id=mandate_id,
                method=method,
                headers=headers,
                content=content,
                key=key,
            )

    @asynccontextmanager
    async def allowance(
        self,
        seller: str,
        *,
        budget: Money,
        max_price: Money,
        mandate_id: str,
        lifetime: timedelta = timedelta(hours=1),
        key: str | None = None,
    ) -> AsyncIterator[str]:
        """Reserves a budget for one seller, for many small payments by ``fetch`` within the block.

        Each is a budget of its own: nested, the innermost pays. A turn that is tried again finds the seller's
        first, second, … allowance of its first attempt. ``key`` names one instead; blocks with the same key
        share it until the last of them ends.

        Raises:
            PaymentRefusedError: An earlier attempt opened an allowance on other terms in this place
                (``id_taken``), or another process pays from it.

        >>> async with turn.allowance(api, budget=dollars, max_price=cents, mandate_id="m-1"):
        ...     paid = await turn.fetch(url, max_price=cents, mandate_id="m-1")  # doctest: +SKIP
        """
        if key is None:
            refuse_within_a_step("turn.allowance without a key")
        opened = self._purse.allowance(
            seller, budget=budget, max_price=max_price, mandate_id=mandate_id, lifetime=lifetime, key=key
        )
        with self._waits.doing():
            async with opened as allowance_id:
                yield allowance_id

    # Steering

    async def take_steers(self) -> list[Steering]:
        """Takes up what people have said since the turn began; they are told it was consumed.

        >>> for steer in await turn.take_steers():  # doctest: +SKIP
        ...     plan = revise(plan, steer.text)
        """
        taken, self._steers = self._steers, []
        self._steered.clear()
        for steer in taken:
            await self._writer.write(EventType.STEER_CONSUMED, {"steer_id": steer.steer_id})
        return [Steering(id=steer.steer_id, text=steer.text, actor=steer.actor) for steer in taken]

    async def wait_for_steer(self) -> None:
        """Waits until there is something for ``take_steers``.

        >>> await turn.wait_for_steer()  # doctest: +SKIP
        """
        await self._steered.wait()

    def hear(self, frame: Control) -> None:
        """Takes what the API tells the turn; called by the runner."""
        match frame:
            # After a reconnect, the API sends all the turn's steers again.
            case SteerFrame() if frame.steer_id not in self._steers_seen:
                self._steers_seen.add(frame.steer_id)
                self._steers.append(frame)
                self._steered.set()
            case AnsweredFrame():
                self._questions.hear(frame)
            case FinishedFrame():
                finished = self._finish_of(frame.turn_id)
                if not finished.done():
                    finished.set_result(frame)
            case _:
                pass
