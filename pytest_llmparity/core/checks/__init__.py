"""The checks: what each needs to be gathered, and how it judges that."""
