"""What engines are: facts a server reports, pins they are held against, the lock, what an engine can do."""
