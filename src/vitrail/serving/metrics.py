"""Metrics in Prometheus format: the quantities that Triton reports, by model."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class ModelMetrics:
    """Metrics of one model, its label set.

    Args:
        metrics: metrics of the server.
        model: name of the model.
    """

    def __init__(self, metrics: "Metrics", model: str):
        self._failures, self.model = metrics.failures, model
        self.success = metrics.success.labels(model)
        self.queue, self.load, self.compute = (
            each.labels(model) for each in (metrics.queue, metrics.load, metrics.compute)
        )
        self.request = metrics.request.labels(model)
        self.batch = metrics.batch.labels(model)
        self.executions, self.inputs = metrics.executions.labels(model), metrics.inputs.labels(model)
        self.pending, self.running = metrics.pending.labels(model), metrics.running.labels(model)
        self.ready = metrics.ready.labels(model)
        self.restarts = metrics.restarts.labels(model)

    def failed(self, reason: str) -> None:
        """Count a failed request."""
        self._failures.labels(self.model, reason).inc()


class Metrics:
    """Metrics of a server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        model = ("model",)
        self.responses = Counter(
            "vitrail_http_responses", "Responses by route and status.", ("route", "status"), registry=registry
        )
        self.success = Counter("vitrail_requests_success", "Answered prediction requests.", model, registry=registry)
        self.failures = Counter(
            "vitrail_requests_failure", "Prediction requests without a result.", ("model", "reason"), registry=registry
        )
        self.inputs = Counter("vitrail_inputs", "Inputs computed.", model, registry=registry)
        self.executions = Counter("vitrail_executions", "Batches computed.", model, registry=registry)
        self.restarts = Counter("vitrail_worker_restarts", "Worker threads started again.", model, registry=registry)
        self.queue = _histogram("vitrail_queue_seconds", "Waiting time of an input.", _SECONDS, registry)
        self.load = _histogram("vitrail_load_seconds", "Decoding time of an input.", _SECONDS, registry)
        self.compute = _histogram("vitrail_compute_seconds", "Compute time of a batch.", _SECONDS, registry)
        self.request = _histogram("vitrail_request_seconds", "Time of an answered request.", _SECONDS, registry)
        self.batch = _histogram("vitrail_batch_size", "Inputs in a batch.", _SIZES, registry)
        self.pending = Gauge("vitrail_pending_inputs", "Inputs that wait.", model, registry=registry)
        self.running = Gauge("vitrail_running_inputs", "Inputs being computed.", model, registry=registry)
        self.ready = Gauge("vitrail_model_ready", "1 once the model is optimized and warm.", model, registry=registry)
        self.connections = Gauge("vitrail_connections", "Open connections.", registry=registry)
        self.held = Gauge("vitrail_held_bytes", "Bytes of bodies and decoded inputs.", registry=registry)
        ProcessCollector(registry=registry)

    def text(self) -> bytes:
        """Return all metrics as text."""
        return generate_latest(self.registry)


def _histogram(name: str, text: str, buckets: tuple[float, ...], registry: CollectorRegistry) -> Histogram:
    return Histogram(name, text, ("model",), buckets=buckets, registry=registry)
