"""What a person is told: the plan before the tests, failures as they are printed, verdicts and reports at the end."""
