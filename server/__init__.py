"""The service: gRPC, journal engines, the replica that folds a journal, and the commands that run them."""
