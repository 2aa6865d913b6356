"""Temporal's workflow sandbox, which finds code that isn't deterministic.

Workers run without it, in tests as in production. Histories are replayed in it, and every kind of workflow
takes odd messages in it.
"""

from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from waystation.temporal.updates_last import UpdatesLast

SANDBOX = UpdatesLast(
    SandboxedWorkflowRunner(
        # The models and the pure modules are deterministic: reloading them for every workflow would cost
        # memory and time and protect against nothing.
        restrictions=SandboxRestrictions.default.with_passthrough_modules(
            "pydantic", "pydantic_core", "annotated_types", "waystation"
        )
    )
)
