"""The judges of a project, and what they ask with."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from noria.bootstrap.parts import upstream
from noria.domain.endpoint import ELSEWHERE
from noria.domain.price import FREE, Price
from noria.ports import Clock, ComputeEngine, RecordStore, StateStore
from noria.settings import Project

if TYPE_CHECKING:
    import pyarrow as pa

    from noria.monitoring.judging import Judges


def judges(
    project: Project,
    store: StateStore,
    tables: RecordStore,
    times: Clock,
    scorers: ComputeEngine,
    redact: Callable[[str], Callable[[str], str]],
    arriving: Callable[[str, "pa.Table"], None],
) -> "Judges":
    """What judges answers; MLflow's scorers run in that engine, apart from the jobs that others wait for."""
    from noria.adapters.mlflow_scorers import MlflowScoring
    from noria.monitoring.asking import Asker
    from noria.monitoring.judging import Judges

    return Judges(
        state=store,
        records=tables,
        clock=times,
        project=project,
        asker=Asker(lambda: upstream(lambda: project)),
        price=prices(project, store, times),
        redact=redact,
        scoring=MlflowScoring(scorers),
        arriving=arriving,
    )


def prices(project: Project, store: StateStore, times: Clock) -> Callable[[str, str | None], Price | None]:
    """Address of a model, and the endpoint that it answers for if it does → what its tokens cost."""
    from noria.adapters.prices import list_price
    from noria.serving.prices import PriceKeeper

    keeper = PriceKeeper(store, times, project, list_price)

    def price(url: str, endpoint: str | None) -> Price | None:
        said = project.endpoints[endpoint].price if endpoint is not None else None
        if said is not None:
            return Price(input=said.input, output=said.output, cached_input=said.cached_input, source="noria.yaml")
        return keeper.price_at(url) if url.startswith(ELSEWHERE) else FREE

    return price
