"""Answers over TLS are the server's, byte for byte (https://github.com/python/cpython/issues/156275).

asyncio's TLS wrote the second of two records that came together into a copy of the buffer it was lent: streams broke
off, and of answers of one length the text of another prompt came out, without an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.plugin.reported.wire import Json, plain, question


def order(body: Json) -> str:
    return f"order {question(body).split()[-1]} is on its way"


def test_every_answer_of_an_https_engine_is_its_own_prompt_s(
    project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    files = tmp_path / "server.pem", tmp_path / "server.key"
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(str(files[0]))
    certificate.private_key_pem.write_to_path(str(files[1]))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    project.engine("base", plain(order), tls=files)
    project.prompts(
        [{"id": f"q{n:03}", "messages": [{"role": "user", "content": f"Where is {n:03}"}]} for n in range(40)]
    )
    project.gate(
        "check.similarity(at_least=0.5)",
        "assert {case: row.text for case, row in parity_run['base'].items()} == "
        "{f'q{n:03}': f'order {n:03} is on its way' for n in range(40)}",
    )

    result = project.run()

    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*1 passed*"])
