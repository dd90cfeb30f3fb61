"""The gRPC services, and how errors become statuses."""
