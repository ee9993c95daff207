"""A server that is started, asked and ended: `transformers serve`, by the standard client."""

import subprocess
import sys
import time

import pytest
from openai import BadRequestError, DefaultHttpxClient, OpenAI

from sft_lab import atlas
from sft_lab.chat import generate_responses
from sft_lab.course import deploy_runs as runs
from sft_lab.course.results import read_results
from sft_lab.course.serving import Server, ServerError, free_port, serving, start_server
from sft_lab.lora import merge_lora
from sft_lab.models import load


@pytest.fixture(scope="module")
def tuned():
    base, tokenizer = load("atlas-base")
    return base, merge_lora(runs.tune_adapter(base, tokenizer, 0)), tokenizer


def connect(server: Server) -> OpenAI:
    return OpenAI(base_url=server.url, api_key="-", http_client=DefaultHttpxClient(trust_env=False))


def is_alive(server: Server) -> bool:
    return server.process.poll() is None


def test_a_pinned_server_answers_as_evaluated_refuses_other_models_and_ends(tuned, tmp_path):
    _, model, tokenizer = tuned
    folder = runs.save_folder(model, tokenizer, tmp_path / "model")
    questions = [talk[0]["content"] for talk in atlas.exam("held_out", 12, seed=3)]
    with serving(folder) as server:
        client = connect(server)
        replies = runs.ask_server(client, folder, questions)
        with pytest.raises(BadRequestError):
            runs.ask_server(client, tmp_path / "other", questions[:1])
        assert is_alive(server)
    assert not is_alive(server) and not server.log.exists()
    evaluated = generate_responses(model, tokenizer, questions)
    assert runs.score(replies, evaluated)["equal"] >= 11 / 12


def test_a_recorded_point_comes_again(tuned, tmp_path):
    base, model, tokenizer = tuned
    questions = [talk[0]["content"] for talk in atlas.exam("held_out", 40)]
    evaluated = generate_responses(model, tokenizer, questions, max_new_tokens=runs.MOST)
    folder = runs.save_folder(model, tokenizer, tmp_path / "model")
    runs.name_ends(folder, [tokenizer.convert_tokens_to_ids("<|endoftext|>")])
    with serving() as server:
        found = runs.score(runs.ask_server(connect(server), folder, questions), evaluated)
    rows = read_results("19b_engines", base)
    band = rows.measured("tokens", engine="transformers serve", ends="the base's end")
    assert found["equal"] < 0.1 and min(band) - 15 < found["tokens"] < max(band) + 15


def test_a_server_that_cannot_start_says_why_and_leaves_nothing(tmp_path):
    server = start_server(tmp_path / "nowhere")
    with pytest.raises(ServerError, match="ended with code"):
        server.wait(seconds=120)
    assert not is_alive(server) and not server.log.exists()


def test_a_server_that_is_not_ready_in_time_is_ended():
    server = start_server()
    with pytest.raises(ServerError, match="not ready after 0 s"):
        server.wait(seconds=0)
    assert not is_alive(server)


def test_an_error_inside_the_block_ends_the_server():
    with pytest.raises(ZeroDivisionError), serving() as server:
        raise ZeroDivisionError
    assert not is_alive(server)


def test_a_server_ends_with_the_process_that_started_it():
    program = (
        "import os, signal\n"
        "from sft_lab.course.serving import start_server\n"
        "server = start_server()\n"
        "print(server.process.pid, flush=True)\n"
        "os.kill(os.getpid(), getattr(signal, 'SIGKILL', signal.SIGTERM))\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    process = int(found.stdout)
    end = time.monotonic() + 60
    while _runs(process) and time.monotonic() < end:
        time.sleep(0.2)
    assert not _runs(process)


def _runs(process: int) -> bool:
    """Whether a process of this number runs and is no mere entry that waits to be collected."""
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True
    ).stdout.strip()
    return bool(state) and not state.startswith("Z")


def test_free_ports_differ_from_a_taken_one():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert free_port() != taken.getsockname()[1]


def test_the_modelfile_is_what_llamafactory_exports_for_chatml():
    chatml = {f"before_{role}": f"<|im_start|>{role}\n" for role in ("system", "user")}
    chatml |= {f"after_{role}": "<|im_end|>\n" for role in ("system", "user", "assistant")}
    chatml |= {"opening": "<|im_start|>assistant\n", "stop": "<|im_end|>"}
    # as LLaMA-Factory 0.9.5 writes it, below its line of comment
    exported = (
        'FROM .\n\nTEMPLATE """{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n'
        '{{ end }}{{ range .Messages }}{{ if eq .Role "user" }}<|im_start|>user\n'
        "{{ .Content }}<|im_end|>\n<|im_start|>assistant\n"
        '{{ else if eq .Role "assistant" }}{{ .Content }}<|im_end|>\n{{ end }}{{ end }}"""\n\n'
        'PARAMETER stop "<|im_end|>"\nPARAMETER num_ctx 4096\n'
    )
    assert runs.write_modelfile(chatml, ".", 4096) == exported


def test_the_view_has_a_row_for_every_file_and_marks_five():
    from sft_lab.course.views.ship import ENGINES, FILES, draw_files

    ax = draw_files()
    shown = {text.get_text() for text in ax.texts}
    assert set(FILES) | set(ENGINES) <= shown
    assert sum(any(use.endswith("*") for use in uses) for uses in FILES.values()) == 5
