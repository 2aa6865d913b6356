"""What Prometheus sees of an API process (``GET /metrics``)."""

from prometheus_client import Counter, Gauge, Histogram

SUBSCRIBERS = Gauge("waystation_subscribers", "Event streams and sockets open now")
ATTENTION_STREAMS = Gauge("waystation_attention_streams", "Streams of what waits for people, open now")
ATTENTION_LOOKS = Counter(
    "waystation_attention_looks_total", "Workflows that were asked what in them waits for people"
)
ATTENTION_LISTS = Counter(
    "waystation_attention_lists_total",
    "Times that Temporal's lists were asked where anything waits",
)
FEEDS = Gauge("waystation_feeds", "Sessions that this process follows now")
AGENT_CONNECTIONS = Gauge("waystation_agent_connections", "Agent processes connected now")
LIVE_DELTAS = Counter("waystation_live_deltas_total", "Live deltas fanned out to clients")
REPLAY_QUERIES = Counter("waystation_replay_queries_total", "Replay queries to session workflows")
BATCHES = Counter("waystation_batches_total", "Batches that Temporal has taken")
REFUSED_ITEMS = Counter(
    "waystation_refused_items_total", "Items of agents that a session or the API has refused", ["code"]
)
BATCH_FAILURES = Counter("waystation_batch_failures_total", "Durable batches that will be sent again")
BATCH_SECONDS = Histogram(
    "waystation_batch_seconds",
    "From sending a batch until Temporal has taken it",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
CLIENTS_SWITCHED_TO_REPLAY = Counter(
    "waystation_clients_switched_to_replay_total", "Clients too slow to be buffered for"
)
