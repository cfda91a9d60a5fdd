"""The daemon: listens, queues, starts runners and serves readers. It may be stopped or killed at any moment."""
