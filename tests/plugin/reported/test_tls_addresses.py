"""Addresses whose TLS does not come about are named as that (https://github.com/truehot/LMLocal/issues/10).

A server with a certificate of its own was reported as *nothing answers … start the server*.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.plugin.reported.wire import plain, serving


@pytest.mark.parametrize(
    ("scheme", "text"),
    [
        ("https", "*the certificate of 127.0.0.1:* is not trusted (self-signed certificate)*ca_bundle*"),
        ("http", "*127.0.0.1:* speaks TLS, not plain HTTP. Write https:// in base_url*"),
    ],
)
def test_what_keeps_tls_from_being_spoken_is_said(project: Any, tmp_path: Path, scheme: str, text: str) -> None:
    itself = trustme.CA()
    files = tmp_path / "server.pem", tmp_path / "server.key"
    itself.cert_pem.write_to_path(str(files[0]))
    itself.private_key_pem.write_to_path(str(files[1]))
    project.engine("base", plain("Five days."))
    project.prompts([{"id": "q", "messages": [{"role": "user", "content": "When?"}]}])
    project.gate("check.prompts()")

    with serving(plain("Five days."), tls=files) as server:
        result = project.run(f"--engines=cand={scheme}://127.0.0.1:{server.port}")

    assert result.ret != pytest.ExitCode.OK
    result.stdout.fnmatch_lines([text])
    assert "nothing answers" not in result.stdout.str()
    assert server.asked == []
