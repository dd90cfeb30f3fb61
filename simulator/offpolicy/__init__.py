"""Off-policy evaluation: what another policy would have made of requests that one policy decided, and how sure that is."""
