"""What stands between the network and the services: who may call, how often, how large."""
