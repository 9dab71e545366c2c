"""What counts in the loss of chat rows are the answers, by an independent judge that decodes them."""

import json
import random
import re
import unicodedata
from itertools import groupby

import pytest
from support import chat_families
from support.chat_families import FAMILIES

from ablate.data import render
from ablate.study.data_settings import Data


def rendered(tokenizer, row, **settings):
    settings = {"source": "rows.json", "format": "chat", "train_on_prompt": False} | settings
    template = render.template(tokenizer, Data(**settings))
    return template.render(row), template.tally.counts()


def counted_runs(tokenizer, row):
    """-> what stands before each run of tokens that count, and the run, decoded."""
    runs, begin = [], 0
    for counts, group in groupby(row.loss_mask):
        end = begin + len(list(group))
        if counts:
            runs.append((tokenizer.decode(row.ids[:begin]), tokenizer.decode(row.ids[begin:end])))
        begin = end
    return runs


def expected(name, tokenizer, row):
    """-> the prompt and the text of every answer that counts, by transformers and the family's format alone."""
    family, messages = FAMILIES[name], row["messages"]
    for turn, message in enumerate(messages):
        if message["role"] == "assistant" and message.get("weight", 1):
            opening = "" if message.get("tool_calls") else family.opening
            ending = "<|endoftext|>" if name == "phi3" and message is messages[-1] else ""
            prompt = tokenizer.apply_chat_template(
                messages[:turn], tools=row["tools"], add_generation_prompt=True, tokenize=False
            )
            yield _without_date(prompt), opening + body(name, message) + family.ending + ending


def _without_date(text):
    return re.sub(r"Today Date: \d\d \w+ \d{4}", "Today Date: 26 Jul 2024", text)


def body(name, message):
    content = message["content"] or ""
    if message.get("tool_calls"):
        return _call(name, message["tool_calls"][0]["function"])
    if name == "qwen3":
        thoughts = message.get("reasoning_content", "")
        if "</think>" in content:
            before, _, content = content.partition("</think>")
            thoughts = before.rstrip("\n").split("<think>")[-1].lstrip("\n")
        return "<think>\n" + thoughts.strip("\n") + "\n</think>\n\n" + content.lstrip("\n")
    return content.strip() if FAMILIES[name].trims else content


def _call(name, function):
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    in_tags = f'<tool_call>\n{{"name": "weather", "arguments": {arguments}}}\n</tool_call>'
    return {
        "llama3": f'{{"name": "weather", "parameters": {arguments}}}',
        "mistral": f'[TOOL_CALLS] [{{"name": "weather", "arguments": {arguments}}}]',
        "qwen25": in_tags,
        "qwen3": f"<think>\n\n</think>\n\n{in_tags}",
    }[name]


@pytest.mark.parametrize("name", FAMILIES)
def test_of_a_thousand_random_rows_the_mask_gives_back_the_answers_each_after_the_prompt_it_is_asked_with(name):
    generator, tokenizer = random.Random(name), chat_families.tokenizer(name)
    for _ in range(143):
        row = chat_families.random_row(generator, FAMILIES[name])
        token_rows, _ = rendered(tokenizer, row)
        runs = [run for token_row in token_rows for run in counted_runs(tokenizer, token_row)]
        assert runs == list(expected(name, tokenizer, row)), row


@pytest.mark.parametrize("name", ["llama3", "qwen3", "mistral", "phi3"])
@pytest.mark.parametrize("sort", ["offsets without spaces", "letters composed", "llama2", "metaspace", "bert"])
def test_however_a_tokenizer_cuts_the_mask_holds_the_answers_but_for_the_spaces_that_it_does_not_give_back(sort, name):
    generator, tokenizer = random.Random(sort + name), chat_families.tokenizer_like(sort, name)
    for _ in range(15):
        row = chat_families.random_row(generator, FAMILIES[name])
        token_rows, _ = rendered(tokenizer, row)
        runs = [text for token_row in token_rows for _, text in counted_runs(tokenizer, token_row)]
        answers = [answer for _, answer in expected(name, tokenizer, row)]
        if sort == "bert":  # gives back what it knows of a text, in small letters
            answers = [tokenizer.decode(tokenizer(answer, add_special_tokens=False)["input_ids"]) for answer in answers]
        assert [bare(run) for run in runs] == [bare(answer) for answer in answers], row


def bare(text):
    return "".join(unicodedata.normalize("NFC", text).split())
