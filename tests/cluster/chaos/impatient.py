"""The operator as it is, but for two times: it waits 10 s rather than 30 s for an answer that never comes, and keeps its Lease
through a minute in which a busy machine does not let it run (`test_leadership.py` uses the shipped times)."""

from patho_operator import __main__ as operator
from patho_operator import client, leader

ANSWER_SECONDS = 10.0
LEASE_SECONDS, RENEW_DEADLINE_SECONDS = 75.0, 60.0


def run() -> None:
    """The process."""
    client.TIMEOUT_SECONDS = ANSWER_SECONDS
    leader.LEASE_SECONDS, leader.RENEW_DEADLINE_SECONDS = LEASE_SECONDS, RENEW_DEADLINE_SECONDS
    operator.run()


if __name__ == "__main__":
    run()
