"""Forges over HTTP: one client, and one file for each of GitHub, Gitea (Forgejo) and GitLab."""
