"""One engine started several times: its prompts are dealt to the replicas by group, and replicas held together."""
