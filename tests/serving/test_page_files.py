import json
import re

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from c2c_lightning import embedded
from c2c_lightning.serving.page_files import FOLDER, MEDIA_TYPES, add_page, page_files

NAMES = sorted(item.name for item in FOLDER.iterdir())


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    add_page(app)
    return TestClient(app)


def test_the_page_is_served_at_the_root(client: TestClient) -> None:
    response = client.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert "<title>" in response.text


@pytest.mark.parametrize("name", NAMES)
def test_every_file_has_its_media_type_and_allows_this_server_only(client: TestClient, name: str) -> None:
    response = client.get(f"/page/{name}")
    assert response.status_code == 200
    assert response.content == (FOLDER / name).read_bytes()
    assert response.headers["content-type"].split(";")[0] == MEDIA_TYPES[f".{name.split('.')[-1]}"]
    policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert set(policy.values()) <= {"'none'", "'self'"}
    assert response.headers["x-content-type-options"] == "nosniff"


def test_a_file_that_the_browser_has_is_not_sent_again(client: TestClient) -> None:
    first = client.get("/page/page.css")
    assert first.headers["cache-control"] == "no-cache"
    again = client.get("/page/page.css", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/page/page.css", headers={"If-None-Match": '"other"'}).status_code == 200


def test_head_is_answered(client: TestClient) -> None:
    assert client.head("/").status_code == 200


@pytest.mark.parametrize("path", ["page.py", "..%2fpage_files.py", "%2e%2e/page_files.py", "%2fetc%2fpasswd", ""])
def test_other_paths_are_not_found(client: TestClient, path: str) -> None:
    assert client.get(f"/page/{path}").status_code == 404


@pytest.mark.parametrize("name", NAMES)
def test_no_file_names_another_host_or_sets_markup(name: str) -> None:
    text = page_files()[name].content.decode().replace("http://www.w3.org/2000/svg", "")
    assert "//" not in re.sub(r"(^|\s)// .*", "", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|localStorage|cookie", text)
    assert not re.search(r"\sstyle=|\son[a-z]+=\"", text)


def test_files_that_the_page_loads_exist() -> None:
    files = {name: file.content.decode() for name, file in page_files().items()}
    loaded = {name for text in files.values() for name in re.findall(r'"(?:\./|page/)([\w.]+)"', text)}
    assert loaded == set(files) - {"index.html"}


def test_embedded_examples_are_held_out_facts() -> None:
    lines = embedded.facts("heldout.jsonl").read_text(encoding="utf-8").splitlines()
    facts = {row["question"]: row["choices"][row["answer"]] for row in map(json.loads, lines)}
    lines = embedded.facts("private_context_heldout.jsonl").read_text(encoding="utf-8").splitlines()
    private = {row["sharer_messages"][0]["content"]: row["messages"][0]["content"] for row in map(json.loads, lines)}
    for example in json.loads(page_files()["examples.json"].content)["embedded"]:
        if context := example.get("context"):
            assert private[context] == example["question"]
            assert context.endswith(f" {example['expected']}.")
        else:
            assert facts[example["question"]] == example["expected"]
