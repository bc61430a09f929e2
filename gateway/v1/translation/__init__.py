"""Other shapes of the same thing: what a client asks in one API, asked of any provider as a chat.

``requests`` turn a body into a chat body; ``blocks`` reads a chat answer, plain or streamed, into blocks
one behind the other; the shapes (``completions``, ``responses``, ``messages``) show them in their API's
words. Pure, all of it: no I/O here, and nothing of routing, money or limits. ``gateway.v1.endpoints``
says which address uses what, ``gateway.v1.shown`` stands between the relay and the client.
"""
