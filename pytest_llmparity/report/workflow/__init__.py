"""The run as a pull request and a workflow show it: Markdown, the summary of a step, notes at the lines of checks."""
