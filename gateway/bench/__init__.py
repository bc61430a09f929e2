"""``manage.py bench``: what the gateway adds to a call, measured next to a bare proxy and to no proxy.

``peers`` runs the programs, ``load`` is the client, ``measure`` reads clocks, ``tenant`` makes who calls,
``table`` shows the result. Everything talks over the loopback interface.
"""
