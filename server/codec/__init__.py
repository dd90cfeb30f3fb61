"""Between the contract's messages and the core's values, both ways. No decisions are made here."""
