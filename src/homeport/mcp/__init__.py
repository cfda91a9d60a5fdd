"""The face for agents: homeport's verbs as tools of the Model Context Protocol.

tools.py says which tools there are, calls.py carries one out, serving.py speaks the protocol.
"""
