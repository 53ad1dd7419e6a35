"""The predictors by name. A new one is one function and one line here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from scepsy.errors import UnknownNameError
from scepsy.model.plan import Allocation, Plan, Prediction, WorkflowRate
from scepsy.predict import critical_path, pipeline
from scepsy.predict.error import with_errors
from scepsy.predict.pipeline import RatedWorkflow
from scepsy.profiles.curve import ProfileSet
from scepsy.traces.demand import WorkflowDemand

Predictor = Callable[[Sequence[RatedWorkflow], Allocation, ProfileSet], Prediction]
"""What an allocation gives to workflows at their rates. Pure; the order of workflows stays.

Raises MissingError where it does not know enough, and says which measurement is missing.
"""

PREDICTORS: Mapping[str, Predictor] = {
    pipeline.PREDICTOR: pipeline.predict,
    critical_path.PREDICTOR: critical_path.predict,
}


def find_predictor(name: str) -> Predictor:
    """The predictor of that name; its figures carry error bars.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in PREDICTORS:
        raise UnknownNameError("predictor", name, PREDICTORS)
    bare = PREDICTORS[name]

    def predict(
        workflows: Sequence[RatedWorkflow], allocation: Allocation, profiles: ProfileSet
    ) -> Prediction:
        return with_errors(bare(workflows, allocation, profiles), workflows, allocation, profiles)

    return predict


def predicted_by(
    name: str, plan: Plan, demands: Sequence[WorkflowDemand], profiles: ProfileSet
) -> Plan:
    """The same allocation and placement, with the figures of another predictor.

    Args:
        name: of the predictor.
        plan: at its own rates.
        demands: of the plan's workflows at least.
        profiles: of the plan's shapes.

    Raises:
        UnknownNameError: there is no such predictor, or a workflow's demand is not given.
        MissingError: as the predictor.
    """
    recorded = {demand.workflow: demand for demand in demands}
    workflows = []
    for predicted in plan.prediction.workflows:
        if predicted.workflow not in recorded:
            raise UnknownNameError("workflow", predicted.workflow, recorded)
        rate = WorkflowRate(predicted.workflow, predicted.rate_per_s)
        workflows.append(RatedWorkflow(recorded[predicted.workflow], rate))
    return replace(plan, prediction=find_predictor(name)(workflows, plan.allocation, profiles))
