"""How gRPC clients, in any language, should retry: a gRPC service config.

Retrying is safe. A `Decide` that is sent again with its `request_id` answers the first decision, an outcome that is sent again
with its `idempotency_key` counts once, and the rest reads only. A service that has too much to do says when to come again.
"""

from __future__ import annotations

import json

SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": "pointsman.v1.RouterService"}, {"service": "pointsman.v1.InsightService"}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
                },
            }
        ],
        "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
    }
)
"""The service config as JSON, to be given to a channel as `grpc.service_config`."""
