"""`python -m routing.simulator --port 8100 --log FILE`."""

from routing.simulator.server import main

main()
