"""Chapter 10 in the browser: the view of a run, and LLaMA-Factory's own page of buttons."""

import html
import re

import pytest
import torch
from factory_board import ENVIRONMENT, TABS, Board, running_board
from notebook_page import SHOTS, find_view, fresh_view
from playwright.sync_api import expect
from transformers import AutoModelForCausalLM

from sft_lab.course.factory_keys import write_yaml
from sft_lab.course.views.factory import describe_factory, settings_file

START = ["Qwen2.5-7B", "lora", 2048, 2, 8, True]  # what the chapter's cell shows first
CAREFUL = '{"use_cpu": true, "trust_remote_code": false}'  # what the form has no field for
SLOW = 90_000  # milliseconds for what starts another process or loads a model


@pytest.fixture(scope="module")
def page(open_chapter):
    return open_chapter(10)


def expect_setup(view, setup: list) -> str:
    """Words, alternative text and file are those of the plain functions; returns the picture."""
    sentence = describe_factory(*setup)
    expect(view.root).to_contain_text(sentence)
    lines = write_yaml(settings_file(*setup)).splitlines()
    shown = view.root.locator("pre")
    expect(shown).to_contain_text(lines[1])
    assert set(lines) <= set(html.unescape(shown.inner_text()).splitlines())
    image = view.root.locator("img")
    expect(image).to_have_attribute("alt", re.compile(re.escape(sentence[:60])))
    return image.get_attribute("src")


def test_running_all_cells_shows_the_view(page):
    expect_setup(find_view(page), START)


def test_buttons_are_pressed_with_space_and_change_file_and_need(page):
    view, setup = fresh_view(page), list(START)
    before = expect_setup(view, setup)
    for place, name, value in (
        (1, "QLoRA, rank 64", "qlora"),
        (5, "off", False),
        (0, "Qwen3-0.6B", "Qwen3-0.6B"),
    ):
        view.tab_to(view.button(name))
        page.keyboard.press("Space")
        setup[place] = value
        after = expect_setup(view, setup)
        assert after != before
        before = after


def test_arrows_on_the_sliders_change_the_sizes(page):
    view, setup = fresh_view(page), list(START)
    expect_setup(view, setup)
    for place, name, key, value in (
        (2, "cutoff_len", "ArrowLeft", 1024),
        (3, "batch", "ArrowRight", 4),
        (4, "accumulation", "Home", 1),
    ):
        view.tab_to(view.slider(name))
        page.keyboard.press(key)
        setup[place] = value
        expect_setup(view, setup)


def test_freeze_is_chosen_with_the_mouse(page):
    view, setup = fresh_view(page), list(START)
    view.button("freeze").click()
    setup[1] = "freeze"
    expect_setup(view, setup)


def test_the_view_is_sound_after_all_this(page):
    find_view(page).check("ch10")


# --- LLaMA-Factory's own page ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def board(browser, tmp_path_factory):
    """The page of `llamafactory-cli webui`, opened, with model, template and form filled in."""
    if not (ENVIRONMENT / "installed").exists():
        pytest.skip("LLaMA-Factory is not installed beside the course: type make llamafactory")
    folder = tmp_path_factory.mktemp("webui")
    with running_board(folder) as url:
        opened = Board(browser.new_page(), url, folder)
        opened.choose("Model name", "Custom")
        opened.write("Model path", "atlas-base")
        opened.choose("Chat template", "chatml")
        fill_train(opened)
        yield opened
        opened.page.close()


def fill_train(board: Board) -> None:
    """The form of the first tab, as the chapter trains."""
    board.choose("Dataset", "atlas")
    board.choose("Compute type", "fp32")
    board.write("Learning rate", "5e-3")
    board.write("Epochs", "1")
    board.number("Cutoff length", 128)
    board.number("Batch size", 8)
    board.number("Gradient accumulation", 2)
    output = board.page.get_by_label("Output dir").locator("visible=true").first
    output.fill("atlas")
    output.press("Enter")
    board.unfold("Extra configurations")


def test_the_page_has_its_four_tabs_and_needs_nothing_from_elsewhere(board):
    tabs = board.page.get_by_role("tab")
    expect(tabs.first).to_be_visible()
    assert [tab.inner_text() for tab in tabs.all()] == list(TABS)
    # without a network it does without a font and a script for framed pages
    assert all("fonts.google" in url or "iframe" in url for url in board.asked), board.asked


def test_train_writes_the_command_of_the_chapter_and_trusts_strangers_unless_told(board):
    board.open("Train")
    board.write("Extra arguments", "{}")
    shown = board.preview()
    expected = {
        "stage": "sft",
        "do_train": "True",
        "model_name_or_path": "atlas-base",
        "template": "chatml",
        "dataset_dir": "data",
        "dataset": "atlas",
        "finetuning_type": "lora",
        "lora_target": "all",
        "cutoff_len": "128",
        "learning_rate": "0.005",
        "per_device_train_batch_size": "8",
        "gradient_accumulation_steps": "2",
        "output_dir": "saves/Custom/lora/atlas",
    }
    assert shown | expected == shown
    assert shown["trust_remote_code"] == "True"
    assert "bf16" not in shown  # fp32 was chosen

    board.write("Extra arguments", CAREFUL)
    SHOTS.mkdir(parents=True, exist_ok=True)
    told = board.preview()
    assert "trust_remote_code" not in told and told["use_cpu"] == "True"
    board.page.screenshot(path=SHOTS / "webui.png")


def test_evaluate_writes_the_train_command_with_do_predict(board):
    board.open("Evaluate & Predict")
    board.choose("Dataset", "atlas")
    shown = board.preview()
    assert shown["do_predict"] == "True" and shown["eval_dataset"] == "atlas"
    assert "do_train" not in shown and shown["predict_with_generate"] == "True"


def test_chat_loads_the_model_and_answers(board):
    board.open("Chat")
    board.press("Load model")
    box = board.page.get_by_placeholder("Input...")
    expect(box).to_be_visible(timeout=SLOW)
    board.number("Maximum new tokens", 8)
    box.fill("What is the capital of Kenya?")
    board.press("Submit")
    answer = board.page.get_by_test_id("bot")
    expect(answer.last).to_have_text(re.compile(r"\w"), timeout=SLOW)
    board.press("Unload model")


def test_export_asks_for_an_adapter_and_merges_the_one_that_start_has_trained(board):
    board.open("Export")
    board.write("Export dir", "merged")
    board.press("Export")
    expect(board.page.get_by_text("Please select an adapter.").first).to_be_visible()

    board.open("Train")
    board.write("Extra arguments", CAREFUL)
    board.press("Start")
    finished = board.page.get_by_text("Finished.", exact=True)
    expect(finished.first).to_be_visible(timeout=SLOW)
    adapter = board.folder / "saves" / "Custom" / "lora" / "atlas"
    assert (adapter / "adapter_model.safetensors").is_file()

    board.choose("Checkpoint path", "atlas")
    board.open("Export")
    board.press("Export")
    said = "() => [...document.querySelectorAll('textarea')].map(el => el.value)"
    board.page.wait_for_function(f"({said})().includes('Model exported.')", timeout=SLOW)
    merged = AutoModelForCausalLM.from_pretrained(board.folder / "merged")
    base = AutoModelForCausalLM.from_pretrained(board.folder / "atlas-base")
    assert merged.num_parameters() == base.num_parameters()
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(merged.get_parameter(name), base.get_parameter(name))
