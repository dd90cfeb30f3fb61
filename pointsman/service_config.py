"""How gRPC clients, in any language, should retry: the gRPC service config of ``service_config.json`` beside this module.

Retrying is safe. A `Decide` that is sent again with its `request_id` answers the first decision, an outcome that is sent again
with its `idempotency_key` counts once, and the rest reads only. A service that has too much to do says when to come again.

>>> json.loads(SERVICE_CONFIG)["methodConfig"][0]["retryPolicy"]["maxAttempts"]
5
"""

from __future__ import annotations

import json
from importlib.resources import files

SERVICE_CONFIG = json.dumps(json.loads(files("pointsman").joinpath("service_config.json").read_text(encoding="utf-8")))
"""The service config as JSON in one line, to be given to a channel as `grpc.service_config`."""
