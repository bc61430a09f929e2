"""Pages travel compressed to browsers that take it; downloads do not."""

from __future__ import annotations

import gzip

from django.urls import reverse

from tests.cast import Cast
from tests.console.conftest import SignIn

TAKES_IT = {"accept-encoding": "gzip, deflate"}


def test_a_page_travels_compressed_to_who_takes_it(acme: Cast, sign_in: SignIn) -> None:
    response = sign_in(acme.ann).get(reverse("console:overview", args=["acme"]), headers=TAKES_IT)
    assert response.headers["Content-Encoding"] == "gzip"
    assert "Accept-Encoding" in response.headers["Vary"]
    assert int(response.headers["Content-Length"]) == len(response.content)
    assert gzip.decompress(response.content).decode().rstrip().endswith("</html>")


def test_a_page_travels_plainly_to_who_does_not(acme: Cast, sign_in: SignIn) -> None:
    response = sign_in(acme.ann).get(reverse("console:overview", args=["acme"]))
    assert "Content-Encoding" not in response.headers
    assert response.content.decode().rstrip().endswith("</html>")


def test_a_download_travels_as_it_is(acme: Cast, sign_in: SignIn) -> None:
    response = sign_in(acme.ann).get(reverse("console:keys_csv", args=["acme"]), headers=TAKES_IT)
    assert "Content-Encoding" not in response.headers
    assert b"".join(response).decode("utf-8-sig").startswith("id,name,")
