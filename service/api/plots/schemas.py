"""What the numbers of pictures look like. They only document: the domain's values are encoded."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, RootModel

from service.api.schemas import CovarianceType, Criterion, Space, VersionAnswer


class PlotAxis(BaseModel):
    name: str
    direction: list[float] = Field(description="(D,)")
    share_of_variance: float | None = Field(description="Of a principal component.")


class PlotPlane(BaseModel):
    axes: list[PlotAxis] = Field(description="Two; one where a single feature is looked at.")
    origin: list[float] = Field(description="(D,)")


class PlotEllipse(BaseModel):
    sigmas: float
    width: float
    height: float = Field(description="0 on a single axis.")
    angle_degrees: float = Field(description="Of the width, counter-clockwise.")


class PlotComponent(BaseModel):
    """A component as it is seen in the plane: its exact marginal there."""

    weight: float
    mean: list[float]
    covariance: list[list[float]]
    ellipses: list[PlotEllipse]


class PlotPoints(BaseModel):
    n_samples: int = Field(description="Rows that were sent.")
    rows: list[int] = Field(description="Indices of the rows that are shown.")
    X: list[list[float]] = Field(description="Where they are in the plane.")
    labels: list[int]


class PlotAnswer(VersionAnswer):
    space: Space


class PlanePlot(PlotAnswer):
    plane: PlotPlane
    components: list[PlotComponent]


class ClustersPlot(PlanePlot):
    kind: Literal["clusters"]
    points: PlotPoints | None = Field(description="Null without rows.")


class UncertaintyPlot(PlanePlot):
    kind: Literal["uncertainty"]
    points: PlotPoints
    entropy: list[float] = Field(description="−Σγ ln γ of each point, in nats.")
    max_entropy: float = Field(description="ln K")


class DensityLevel(BaseModel):
    share: float = Field(description="Of the probability that the contour encloses.")
    log_density: float


class DensityPlot(PlanePlot):
    kind: Literal["density"]
    points: PlotPoints | None = Field(description="Null without rows.")
    x: list[float]
    y: list[float] | None = Field(description="Null on a single axis.")
    log_density: list[list[float]] | list[float] = Field(
        description="A row for each y; on a single axis a number for each x."
    )
    levels: list[DensityLevel]


class ResponsibilitiesPlot(PlotAnswer):
    kind: Literal["responsibilities"]
    n_samples: int
    rows: list[int] = Field(description="By label, then the surest first.")
    labels: list[int]
    probabilities: list[list[float]]


class ConvergencePlot(PlotAnswer):
    kind: Literal["convergence"]
    log_likelihood: list[float] = Field(description="After each step.")
    converged: bool
    stop_reason: str


class SelectionCurve(BaseModel):
    covariance_type: CovarianceType
    n_components: list[int]
    values: dict[str, list[float | None]] = Field(description="By criterion.")


class PlottedBest(BaseModel):
    covariance_type: CovarianceType
    n_components: int
    value: float


class SelectionPlot(PlotAnswer):
    kind: Literal["selection"]
    criterion: Criterion = Field(description="That the version was chosen by.")
    curves: list[SelectionCurve]
    best: dict[str, PlottedBest | None] = Field(description="By criterion.")


class KMeansPlot(PlanePlot):
    kind: Literal["kmeans"]
    points: PlotPoints
    kmeans_labels: list[int] = Field(description="Of the points.")
    kmeans_centers: list[list[float]] = Field(description="In the plane.")
    differing: list[int] = Field(description="The points that the two label differently.")
    n_differing: int = Field(description="Of all rows sent.")


class Plot(
    RootModel[
        Annotated[
            ClustersPlot
            | UncertaintyPlot
            | DensityPlot
            | ResponsibilitiesPlot
            | ConvergencePlot
            | SelectionPlot
            | KMeansPlot,
            Field(discriminator="kind"),
        ]
    ]
):
    """The numbers that a picture shows."""
