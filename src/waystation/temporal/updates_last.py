"""Runs each workflow task whole, with its updates after all else, however Temporal's SDK hands it over.

A worker that has just taken over a workflow may be given a task's signals and then its updates, one after the
other; when it replays the history, it is given both at once, and then the updates come first, before the
workflow's main loop has acted upon the signals. The commands come in another order then, the history doesn't
replay, and the workflow stands still (https://github.com/temporalio/sdk-python/issues/1591). With the updates
always last there is one order.

What local activities came to is the exception: it comes after the updates. When a history is replayed, it is
handed over by itself, after everything else of its task; a worker to which Temporal answered late, while it
kept a task alive for a local activity, is given both at once.

After a reset, updates and signals are taken again in one task, in the order of their coming: a message before
what its turn reported. When such a history is replayed, the SDK gives the updates after the signals there,
too. So the place of each of them is kept in the history, among the SDK's flags, and restored.

A worker may also take over with a query. Temporal gives it the history as it stands then, and the SDK carries
out events whose task has not begun yet; more may come into that task, and when the history is replayed all of
it comes at once. Such a query is refused, and the worker forgets the workflow; ``AskAgain`` asks again. Of a
run that was terminated no task will begin any more: then the query says so, and is answered.
"""

from collections.abc import Sequence
from typing import Final

from temporalio.bridge.proto.workflow_activation import WorkflowActivation, WorkflowActivationJob
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.converter import SerializationContext, StorageDriverStoreContext
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner
from temporalio.workflow import Info

from waystation.temporal.names import NOT_BEGUN, RUN_HAS_ENDED

UPDATES_LAST: Final = 1591
"""In the histories of workflows that began in this order, among the SDK's flags; its own are small."""
AMONG_SIGNALS: Final = 1 << 30
"""With the place of an update that a reset has taken again, a flag of such a history: see ``_place``."""
_NO_EVENTS: Final = frozenset({"query_workflow", "remove_from_cache"})
_ENDS: Final = frozenset(
    {
        "complete_workflow_execution",
        "fail_workflow_execution",
        "cancel_workflow_execution",
        "continue_as_new_workflow_execution",
    }
)


class UpdatesLast(WorkflowRunner):
    """Runs workflows as another does, each task whole, its updates last but for its local activities.

    A workflow that began without this order goes on without it until it continues as new.
    """

    def __init__(self, inner: WorkflowRunner) -> None:
        self._inner = inner

    def prepare_workflow(self, defn: object) -> None:
        """See ``WorkflowRunner``."""
        self._inner.prepare_workflow(defn)  # type: ignore[arg-type]

    def set_worker_level_failure_exception_types(self, types: Sequence[type[BaseException]]) -> None:
        """See ``WorkflowRunner``."""
        self._inner.set_worker_level_failure_exception_types(types)

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """See ``WorkflowRunner``."""
        return _Instance(self._inner.create_instance(det))


class _Instance(WorkflowInstance):
    def __init__(self, inner: WorkflowInstance) -> None:
        self._inner = inner
        self._updates_last = False
        self._task: tuple[int, int, int] | None = None
        self._events = 0
        self._ahead = False

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        if self._goes_wrong(act):
            refused = WorkflowActivationCompletion(run_id=act.run_id)
            refused.failed.failure.message = NOT_BEGUN
            return refused
        begins = any(job.HasField("initialize_workflow") for job in act.jobs)
        if begins:
            self._updates_last = not act.is_replaying or UPDATES_LAST in act.available_internal_flags
        done = self._activate(act)
        if begins and not act.is_replaying and done.HasField("successful"):
            done.successful.used_internal_flags.append(UPDATES_LAST)
        return done

    def _goes_wrong(self, act: WorkflowActivation) -> bool:
        """Returns whether it builds upon events beyond the last task, with no task that began after them."""
        if all(job.WhichOneof("variant") in _NO_EVENTS for job in act.jobs):
            asked = [job.query_workflow for job in act.jobs if job.HasField("query_workflow")]
            return self._ahead and any(RUN_HAS_ENDED not in query.headers for query in asked)
        # A task's beginning says both when it began and how large the history was.
        task = (act.timestamp.seconds, act.timestamp.nanos, act.history_size_bytes)
        if task != self._task:
            self._task, self._events = task, act.history_length
            return self._ahead
        self._ahead = self._ahead or act.history_length > self._events
        self._events = act.history_length
        return False

    def _activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        if _was_reset(act):
            return self._inner.activate(_as_it_was(act))
        if _is_reset(act):
            return self._take_again(act)
        parts = [part for part in _in_order(act) if part]
        if not self._updates_last or len(parts) < 2:
            return self._inner.activate(act)
        done = self._inner.activate(_with(act, parts[0]))
        for part in parts[1:]:
            if not done.HasField("successful") or _has_ended(done):
                # What has ended takes no updates; Temporal tells those who sent them.
                return done
            then = self._inner.activate(_with(act, part))
            if not then.HasField("successful"):
                return then
            done.successful.commands.extend(then.successful.commands)
            done.successful.used_internal_flags.extend(then.successful.used_internal_flags)
        return done

    def _take_again(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        """Takes what came before a reset, in its order, and has the history keep that."""
        done = self._inner.activate(act)
        if done.HasField("successful"):
            places = [_place(act, at) for at, job in enumerate(act.jobs) if job.HasField("do_update")]
            done.successful.used_internal_flags.extend(places)
        return done

    def get_serialization_context(self, command_info: object) -> SerializationContext | None:
        return self._inner.get_serialization_context(command_info)  # type: ignore[arg-type]

    def get_external_store_context(self, command_info: object) -> StorageDriverStoreContext:
        return self._inner.get_external_store_context(command_info)  # type: ignore[arg-type]

    def get_info(self) -> Info:
        return self._inner.get_info()

    def get_thread_id(self) -> int | None:
        return self._inner.get_thread_id()


def _in_order(act: WorkflowActivation) -> tuple[list[WorkflowActivationJob], ...]:
    """Returns the activation's jobs in three parts, which are run one after the other."""
    updates = [job for job in act.jobs if job.HasField("do_update")]
    local = [job for job in act.jobs if job.HasField("resolve_activity") and job.resolve_activity.is_local]
    others = [job for job in act.jobs if job not in updates and job not in local]
    return others, updates, local


def _with(act: WorkflowActivation, jobs: Sequence[WorkflowActivationJob]) -> WorkflowActivation:
    """Returns the activation with these of its jobs."""
    part = WorkflowActivation()
    part.CopyFrom(act)
    del part.jobs[:]
    part.jobs.extend(jobs)
    return part


def _is_reset(act: WorkflowActivation) -> bool:
    """Whether a signal comes after an update: only a reset takes both again, in the order of their coming."""
    kinds = [job.WhichOneof("variant") for job in act.jobs]
    return "do_update" in kinds and "signal_workflow" in kinds[kinds.index("do_update") :]


def _was_reset(act: WorkflowActivation) -> bool:
    """Whether it replays what a reset took again, with updates before signals."""
    updates = sum(job.HasField("do_update") for job in act.jobs)
    return act.is_replaying and updates > 0 and len(_places(act)) == updates


def _places(act: WorkflowActivation) -> set[int]:
    """Returns where its updates stood when the reset took them."""
    known = set(act.available_internal_flags)
    return {at for at in range(len(act.jobs)) if _place(act, at) in known}


def _place(act: WorkflowActivation, at: int) -> int:
    """Returns what stands for this place among the activation's jobs.

    Each job is at least one event of the history, so no two tasks of it share one.
    """
    return AMONG_SIGNALS + act.history_length - len(act.jobs) + at


def _as_it_was(act: WorkflowActivation) -> WorkflowActivation:
    """Returns the activation with its updates in their places, and all else in order around them."""
    updates = iter([job for job in act.jobs if job.HasField("do_update")])
    others = iter([job for job in act.jobs if not job.HasField("do_update")])
    places = _places(act)
    return _with(act, [next(updates if at in places else others) for at in range(len(act.jobs))])


def _has_ended(done: WorkflowActivationCompletion) -> bool:
    return any(command.WhichOneof("variant") in _ENDS for command in done.successful.commands)
