"""Guards between the network and the services: authentication, rates, admission, sizes."""
